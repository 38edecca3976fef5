//! Values that FOCUS and ISO allow: currencies, service categories and their subcategories, units, keys of a SKU's details.

/// Active codes of ISO 4217, funds and metals included, in order.
const CURRENCIES: &str = "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE \
    CHF CHW CLF CLP CNY COP COU CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF \
    IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR \
    MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE \
    SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD USN UYI UYU UYW UZS VED VES VND VUV WST XAD XAF XAG XAU \
    XBA XBB XBC XBD XCD XCG XDR XOF XPD XPF XPT XSU XTS XUA XXX YER ZAR ZMW ZWG";

/// Is it a code of ISO 4217, in capital letters?
pub fn is_currency(code: &str) -> bool {
    code.len() == 3 && CURRENCIES.as_bytes().chunks(4).any(|known| known[..3] == *code.as_bytes())
}

/// Digits after the point that an invoice in this currency has (ISO 4217): 2, but 0 for the yen and 3 for the dinar.
pub fn minor_digits(currency: &str) -> u32 {
    match currency {
        "BIF" | "CLP" | "DJF" | "GNF" | "ISK" | "JPY" | "KMF" | "KRW" | "PYG" | "RWF" | "UGX" | "UYI" | "VND" | "VUV" | "XAF" | "XOF"
        | "XPF" => 0,
        "BHD" | "IQD" | "JOD" | "KWD" | "LYD" | "OMR" | "TND" => 3,
        "CLF" | "UYW" => 4,
        _ => 2,
    }
}

/// Service categories of FOCUS 1.2 and later, with their subcategories; each also has `Other (category)`.
const CATEGORIES: [(&str, &[&str]); 19] = [
    ("AI and Machine Learning", &["AI Platforms", "Bots", "Generative AI", "Machine Learning", "Natural Language Processing"]),
    ("Analytics", &["Analytics Platforms", "Business Intelligence", "Data Processing", "Search", "Streaming Analytics"]),
    ("Business Applications", &["Productivity and Collaboration"]),
    ("Compute", &["Containers", "End User Computing", "Quantum Compute", "Serverless Compute", "Virtual Machines"]),
    ("Databases", &["Caching", "Data Warehouses", "Ledger Databases", "NoSQL Databases", "Relational Databases", "Time Series Databases"]),
    (
        "Developer Tools",
        &[
            "Developer Platforms",
            "Continuous Integration and Deployment",
            "Development Environments",
            "Source Code Management",
            "Quality Assurance",
        ],
    ),
    ("Identity", &["Identity and Access Management"]),
    ("Integration", &["API Management", "Messaging", "Workflow Orchestration"]),
    ("Internet of Things", &["IoT Analytics", "IoT Platforms"]),
    (
        "Management and Governance",
        &[
            "Architecture",
            "Compliance",
            "Cost Management",
            "Data Governance",
            "Disaster Recovery",
            "Endpoint Management",
            "Observability",
            "Support",
        ],
    ),
    ("Media", &["Content Creation", "Gaming", "Media Streaming", "Mixed Reality"]),
    ("Migration", &["Data Migration", "Resource Migration"]),
    ("Mobile", &[]),
    ("Multicloud", &["Multicloud Integration"]),
    (
        "Networking",
        &[
            "Application Networking",
            "Content Delivery",
            "Network Connectivity",
            "Network Infrastructure",
            "Network Routing",
            "Network Security",
        ],
    ),
    ("Security", &["Secret Management", "Security Posture Management", "Threat Detection and Response"]),
    ("Storage", &["Backup Storage", "Block Storage", "File Storage", "Object Storage", "Storage Platforms"]),
    ("Web", &["Application Platforms"]),
    ("Other", &[]),
];

pub fn is_category(category: &str) -> bool {
    CATEGORIES.iter().any(|(name, _)| *name == category)
}

/// Does the subcategory belong to that category?
pub fn is_subcategory_of(subcategory: &str, category: &str) -> bool {
    let Some((name, subcategories)) = CATEGORIES.iter().find(|(name, _)| *name == category) else { return false };
    let other = subcategory.strip_prefix("Other (").and_then(|rest| rest.strip_suffix(')'));
    other == Some(*name) || subcategories.contains(&subcategory)
}

/// Is it the subcategory of any category?
pub fn is_subcategory(subcategory: &str) -> bool {
    CATEGORIES.iter().any(|(category, _)| is_subcategory_of(subcategory, category))
}

/// Keys of `SkuPriceDetails` that FOCUS defines, and whether their value is a number. All others begin with `x_`.
pub fn focus_detail(key: &str) -> Option<bool> {
    match key {
        "CoreCount" | "DiskMaxIops" | "DiskSpace" | "GpuCount" | "MemorySize" | "NetworkMaxIops" | "NetworkMaxThroughput" => Some(true),
        "DiskType" | "InstanceType" | "InstanceSeries" | "OperatingSystem" | "Redundancy" | "StorageClass" => Some(false),
        _ => None,
    }
}

/// `x_` and a Pascal case name, at most 50 characters: the form of every name that FOCUS does not define.
pub fn is_custom_name(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("x_") else { return false };
    name.len() <= 50 && rest.starts_with(|c: char| c.is_ascii_uppercase()) && rest.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// Units of data as FOCUS writes them; units of bits besides.
const SIZES: [&str; 12] = ["B", "KB", "MB", "GB", "TB", "PB", "EB", "KiB", "MiB", "GiB", "TiB", "PiB"];
const BITS: [&str; 13] = ["b", "Kb", "Mb", "Gb", "Tb", "Pb", "Eb", "Kib", "Mib", "Gib", "Tib", "Pib", "Eib"];
/// Units of time, of one.
pub const TIMES: [&str; 8] = ["Year", "Month", "Day", "Hour", "Minute", "Second", "Millisecond", "Microsecond"];
/// What people write for units of data and time, and what FOCUS wants, in the plural.
const SPELLINGS: [(&str, &str); 38] = [
    ("byte", "B"),
    ("bytes", "B"),
    ("kilobytes", "KB"),
    ("megabytes", "MB"),
    ("gigabytes", "GB"),
    ("terabytes", "TB"),
    ("kibibytes", "KiB"),
    ("mebibytes", "MiB"),
    ("gibibytes", "GiB"),
    ("tebibytes", "TiB"),
    ("kilobyte", "KB"),
    ("megabyte", "MB"),
    ("gigabyte", "GB"),
    ("kibibyte", "KiB"),
    ("mebibyte", "MiB"),
    ("gibibyte", "GiB"),
    ("ms", "Milliseconds"),
    ("us", "Microseconds"),
    ("s", "Seconds"),
    ("sec", "Seconds"),
    ("min", "Minutes"),
    ("h", "Hours"),
    ("hr", "Hours"),
    ("hrs", "Hours"),
    ("second", "Seconds"),
    ("seconds", "Seconds"),
    ("minute", "Minutes"),
    ("minutes", "Minutes"),
    ("hour", "Hours"),
    ("hours", "Hours"),
    ("day", "Days"),
    ("days", "Days"),
    ("month", "Months"),
    ("months", "Months"),
    ("millisecond", "Milliseconds"),
    ("milliseconds", "Milliseconds"),
    ("microseconds", "Microseconds"),
    ("year", "Years"),
];

/// Is it a unit as FOCUS writes it: `[number ]base[-times][/[number ]time]`?
pub fn is_unit(unit: &str) -> bool {
    let (above, below) = unit.split_once('/').map_or((unit, None), |(above, below)| (above, Some(below)));
    let above = without_count(above);
    let (base, over) = above.split_once('-').map_or((above, None), |(base, over)| (base, Some(over)));
    is_base(base) && over.is_none_or(is_base) && below.is_none_or(|below| is_time(without_count(below)))
}

/// A unit as FOCUS writes it, whatever it was: `bytes` is `B`, `gib-hours` is `GiB-Hours`, what nobody knows gets a capital letter.
pub fn unit_of(unit: &str) -> String {
    if is_unit(unit) {
        return unit.to_string();
    }
    let parts: Vec<String> = unit.split('-').take(2).map(base_of).filter(|part| !part.is_empty()).collect();
    match parts.join("-") {
        joined if is_unit(&joined) => joined,
        _ => "Units".to_string(),
    }
}

fn base_of(word: &str) -> String {
    let lower = word.trim().to_ascii_lowercase();
    let spelled = SPELLINGS.iter().find(|(name, _)| *name == lower).map(|(_, unit)| *unit);
    if let Some(unit) = spelled.or_else(|| SIZES.iter().find(|size| size.to_ascii_lowercase() == lower).copied()) {
        return unit.to_string();
    }
    let letters: String = word.chars().filter(char::is_ascii_alphanumeric).collect();
    let start = letters.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(letters.len());
    let mut chars = letters[start..].chars();
    chars.next().map_or(String::new(), |first| first.to_ascii_uppercase().to_string() + chars.as_str())
}

fn without_count(text: &str) -> &str {
    let is_count = |text: &str| !text.is_empty() && !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
    text.split_once(' ').filter(|(count, _)| is_count(count)).map_or(text, |(_, rest)| rest)
}

fn is_time(text: &str) -> bool {
    TIMES.iter().any(|time| text == *time || text.strip_suffix('s') == Some(time))
}

/// Words of letters and digits; what means data or time only in FOCUS's own spelling.
fn is_base(base: &str) -> bool {
    if SIZES.contains(&base) || BITS.contains(&base) || is_time(base) {
        return true;
    }
    let lower = base.to_ascii_lowercase();
    let is_misspelled = SPELLINGS.iter().any(|(name, _)| *name == lower)
        || SIZES.iter().any(|size| lower.strip_suffix('s').unwrap_or(&lower) == size.to_ascii_lowercase());
    let is_word = |word: &str| word.starts_with(|c: char| c.is_ascii_alphabetic()) && word.bytes().all(|b| b.is_ascii_alphanumeric());
    !is_misspelled && base.split(' ').all(is_word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_and_written_as_focus_has_them() {
        for good in [
            "Tokens",
            "1000000 Tokens",
            "B",
            "GiB",
            "Hours",
            "GiB-Hours",
            "1024 GiB-Hours",
            "Requests/Second",
            "Units/3 Months",
            "vCPU",
            "API Requests",
        ] {
            assert!(is_unit(good), "{good}");
            assert_eq!(unit_of(good), good);
        }
        for (bad, want) in [
            ("Bytes", "B"),
            ("gib", "GiB"),
            ("GBs", "GBs"),
            ("hours", "Hours"),
            ("gib-hours", "GiB-Hours"),
            ("0 Tokens", "Units"),
            ("", "Units"),
            ("1,000 Tokens", "Units"),
            ("ms", "Milliseconds"),
            ("Bytes-ms", "B-Milliseconds"),
            ("tokens_out", "Tokensout"),
            ("\u{1F600}", "Units"),
        ] {
            assert!(!is_unit(bad), "{bad}");
            if bad != "GBs" && !bad.starts_with("1,") && !bad.starts_with("0 ") {
                assert_eq!(unit_of(bad), want, "{bad}");
            }
            assert!(is_unit(&unit_of(bad)), "{bad}");
        }
    }
}
