//! Meters that need no more than the name of a convention: what a request to a model used, in tokens.
//!
//! In: a `meter` step with `usage`. Out: the meters it stands for, each as if it had been written out: input, output, and of the
//! input what was read from a cache and what was written to one. Rule R10: where a convention counts cached tokens as input, the
//! part is held against its whole. A record without one of the fields has nothing of that kind; it costs one comparison.
//! Usage events name their meter and unit themselves: they are counted under [`NAMED`], by these two before all else, and whoever
//! reads facts puts the names where they belong.

use super::config::{MeterConfig, MeterKind, UsageFields};

/// Names of meters whose first two dimensions are the event's own meter and unit: what was used at a time, and what was held.
pub const NAMED: [&str; 2] = ["@events", "@held"];

/// One meter of a convention: its name, the field of its quantity, and the field that includes it.
struct Preset {
    name: &'static str,
    quantity: &'static str,
    part_of: Option<&'static str>,
}

const IN: &str = "tokens_in";
const OUT: &str = "tokens_out";
const CACHE_READ: &str = "tokens_cache_read";
const CACHE_WRITE: &str = "tokens_cache_write";

const fn whole(name: &'static str, quantity: &'static str) -> Preset {
    Preset { name, quantity, part_of: None }
}

const fn part(name: &'static str, quantity: &'static str, of: &'static str) -> Preset {
    Preset { name, quantity, part_of: Some(of) }
}

const GEN_AI: &[Preset] = &[
    whole(IN, "gen_ai.usage.input_tokens"),
    whole(OUT, "gen_ai.usage.output_tokens"),
    part(CACHE_READ, "gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.input_tokens"),
    part(CACHE_WRITE, "gen_ai.usage.cache_creation.input_tokens", "gen_ai.usage.input_tokens"),
];

const OPENAI: &[Preset] = &[
    whole(IN, "usage.prompt_tokens"),
    whole(OUT, "usage.completion_tokens"),
    part(CACHE_READ, "usage.prompt_tokens_details.cached_tokens", "usage.prompt_tokens"),
    part(CACHE_WRITE, "usage.prompt_tokens_details.cache_write_tokens", "usage.prompt_tokens"),
];

const OPENAI_RESPONSES: &[Preset] = &[
    whole(IN, "usage.input_tokens"),
    whole(OUT, "usage.output_tokens"),
    part(CACHE_READ, "usage.input_tokens_details.cached_tokens", "usage.input_tokens"),
    part(CACHE_WRITE, "usage.input_tokens_details.cache_write_tokens", "usage.input_tokens"),
];

// Here input is what no cache had: the three add up.
const ANTHROPIC: &[Preset] = &[
    whole(IN, "usage.input_tokens"),
    whole(OUT, "usage.output_tokens"),
    whole(CACHE_READ, "usage.cache_read_input_tokens"),
    whole(CACHE_WRITE, "usage.cache_creation_input_tokens"),
];

impl UsageFields {
    fn presets(self) -> &'static [Preset] {
        match self {
            UsageFields::GenAi => GEN_AI,
            UsageFields::Openai => OPENAI,
            UsageFields::OpenaiResponses => OPENAI_RESPONSES,
            UsageFields::Anthropic => ANTHROPIC,
            UsageFields::Events => &[],
        }
    }
}

impl MeterConfig {
    /// The meters that this step stands for: itself, or those of its convention.
    pub fn expand(&self) -> Vec<MeterConfig> {
        let Some(usage) = self.usage else { return vec![self.clone()] };
        if usage == UsageFields::Events {
            return self.events();
        }
        let path = |field: &str| self.within.as_ref().map_or_else(|| field.to_string(), |within| format!("{within}.{field}"));
        let meter = |preset: &Preset| MeterConfig {
            name: if self.name.is_empty() { preset.name.into() } else { format!("{}_{}", self.name, preset.name) },
            quantity: Some(path(preset.quantity)),
            unit: Some("Tokens".into()),
            part_of: preset.part_of.map(path),
            usage: None,
            within: None,
            ..self.clone()
        };
        usage.presets().iter().map(meter).collect()
    }

    fn events(&self) -> Vec<MeterConfig> {
        let text = |name: &str| name.to_string();
        let own = if self.by.is_empty() { vec![text("service"), text("model")] } else { self.by.clone() };
        let of = |name: &str, kind: MeterKind, when: &str| MeterConfig {
            name: text(name),
            kind: Some(kind),
            quantity: Some(text("quantity")),
            unit: Some(text("Units")),
            by: [text("meter"), text("unit")].into_iter().chain(own.iter().cloned()).collect(),
            when: Some(self.when.as_ref().map_or_else(|| text(when), |own| format!("({own}) && {when}"))),
            key: vec![text("source"), text("id")],
            usage: None,
            ..self.clone()
        };
        let mut held = of(NAMED[1], MeterKind::Interval, "has(meter) && has(start)");
        (held.start, held.end) = (Some(text("start")), Some(text("end")));
        vec![of(NAMED[0], MeterKind::Sum, "has(meter) && !has(start)"), held]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_convention_is_four_meters_as_if_written_out() {
        let config = |text: &str| -> MeterConfig { serde_json::from_str(text).unwrap() };
        let shown = |meter: &MeterConfig| {
            let part = meter.part_of.as_ref().map_or(String::new(), |whole| format!(" part of {whole}"));
            format!("{} {} {}{part}", meter.name, meter.quantity.as_deref().unwrap(), meter.unit.as_deref().unwrap())
        };
        let all = |text: &str| config(text).expand().iter().map(shown).collect::<Vec<_>>();
        assert_eq!(
            all(r#"{"usage":"gen_ai"}"#),
            [
                "tokens_in gen_ai.usage.input_tokens Tokens",
                "tokens_out gen_ai.usage.output_tokens Tokens",
                "tokens_cache_read gen_ai.usage.cache_read.input_tokens Tokens part of gen_ai.usage.input_tokens",
                "tokens_cache_write gen_ai.usage.cache_creation.input_tokens Tokens part of gen_ai.usage.input_tokens",
            ]
        );
        assert_eq!(
            all(r#"{"usage":"openai","name":"chat","within":"response"}"#)[2],
            "chat_tokens_cache_read response.usage.prompt_tokens_details.cached_tokens Tokens part of response.usage.prompt_tokens"
        );
        assert_eq!(all(r#"{"usage":"openai_responses"}"#)[0], "tokens_in usage.input_tokens Tokens");
        assert_eq!(all(r#"{"usage":"anthropic"}"#)[2], "tokens_cache_read usage.cache_read_input_tokens Tokens");
        let keyed = config(r#"{"usage":"openai","key":["id"],"by":["model"],"when":"has(usage)"}"#).expand();
        assert!(keyed.iter().all(|m| m.key == ["id"] && m.by == ["model"] && m.when.as_deref() == Some("has(usage)")));
        let plain = config(r#"{"name":"requests"}"#);
        assert_eq!(plain.expand(), [plain]);
    }
}
