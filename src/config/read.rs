//! From the tree to a struct: every mistake of kind, key and limit, not only the first.
//!
//! serde stops at its first error. So each error is noted at its node, the node is taken out (a key that lacks is taken as
//! given), and reading starts again until it passes. Bound: [`MISTAKES_MAX`] mistakes; the last one says that there are more.

use super::locate::{Kind, NodeId, Plain, Tree};
use super::report::{MISTAKES_MAX, Mistake, nearest};
use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Expected, MapAccess, SeqAccess, Unexpected, VariantAccess, Visitor,
};
use std::fmt;

/// Reads a whole tree. `None` if too little is left of it.
pub fn read<T: DeserializeOwned>(tree: &mut Tree, mistakes: &mut Vec<Mistake>) -> Option<T> {
    loop {
        let fault = match T::deserialize(Reader { tree, id: tree.root }) {
            Ok(value) => return Some(value),
            Err(fault) => fault,
        };
        let id = fault.id.unwrap_or(tree.root);
        let goes_on = match &fault.what {
            What::Placeholder => tree.remove(id),
            What::Missing(key) => {
                if !tree.lost(id, key) {
                    mistakes.push(tell(tree, id, &fault.what));
                }
                tree.put_placeholder(id, key) || tree.remove(id)
            }
            // A map that lacks what was taken out of it is no second mistake.
            What::Text(_) if tree.lost_any(id) => tree.remove(id),
            What::UnknownKey(key, known) => {
                mistakes.push(tell(tree, id, &fault.what));
                if let Some(meant) = nearest(key, known.iter().copied()) {
                    tree.rename(id, meant);
                }
                tree.remove(id)
            }
            what => {
                mistakes.push(tell(tree, id, what));
                tree.remove(id)
            }
        };
        if mistakes.len() >= MISTAKES_MAX {
            mistakes.push(Mistake::of_file(&tree.file, format!("more than {MISTAKES_MAX} mistakes"), "mend these first, then check again"));
            return None;
        }
        if !goes_on {
            return None;
        }
    }
}

/// One error of serde's: what and at which node.
#[derive(Debug)]
pub struct Fault {
    what: What,
    id: Option<NodeId>,
}

#[derive(Debug)]
enum What {
    Text(String),
    UnknownKey(String, &'static [&'static str]),
    UnknownWord(String, &'static [&'static str]),
    Missing(&'static str),
    /// Nothing could be made up for a key that lacks; that it lacks has been told.
    Placeholder,
}

impl Fault {
    fn new(what: What) -> Fault {
        Fault { what, id: None }
    }

    /// The innermost node stays.
    fn at(self, id: NodeId) -> Fault {
        Fault { id: self.id.or(Some(id)), ..self }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.what)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(text: T) -> Fault {
        Fault::new(What::Text(text.to_string()))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Fault {
        Fault::new(What::Text(format!("found {}, expected {}", found_name(found), expected_name(&expected.to_string()))))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Fault {
        Fault::invalid_type(found, expected)
    }

    fn unknown_variant(word: &str, known: &'static [&'static str]) -> Fault {
        Fault::new(What::UnknownWord(word.to_string(), known))
    }

    fn unknown_field(key: &str, known: &'static [&'static str]) -> Fault {
        Fault::new(What::UnknownKey(key.to_string(), known))
    }

    fn missing_field(key: &'static str) -> Fault {
        Fault::new(What::Missing(key))
    }
}

fn found_name(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(value) => format!("`{value}`"),
        Unexpected::Unsigned(number) => format!("the number {number}"),
        Unexpected::Signed(number) => format!("the number {number}"),
        Unexpected::Float(number) => format!("the number {number}"),
        Unexpected::Str(text) => format!("the text {:?}", text.chars().take(60).collect::<String>()),
        Unexpected::Unit | Unexpected::Option => "nothing".into(),
        Unexpected::Seq => "a list".into(),
        Unexpected::Map => "a map".into(),
        other => other.to_string(),
    }
}

/// Words of serde's own, in ours.
fn expected_name(expected: &str) -> String {
    match expected {
        "a string" | "str" => "text".into(),
        "a boolean" => "true or false".into(),
        "a sequence" => "a list, as in [a, b]".into(),
        "a map" => "a map, as in { key: value }".into(),
        "path string" => "a path".into(),
        "u8" => "a whole number from 0 to 255".into(),
        "u16" => "a whole number from 0 to 65535".into(),
        "u32" => "a whole number from 0 to 4294967295".into(),
        "u64" | "usize" => "a whole number, 0 or more".into(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".into(),
        "f32" | "f64" => "a number".into(),
        text if text.starts_with("struct ") => "a map, as in { key: value }".into(),
        text => text.into(),
    }
}

/// Makes a mistake of a fault.
fn tell(tree: &Tree, id: NodeId, what: &What) -> Mistake {
    let message = match what {
        What::Text(text) => text.clone(),
        What::Placeholder => "something lacks here".into(),
        What::Missing(key) => {
            let name = tree.path_of(id).to_string();
            let owner = if name.is_empty() { "the file".into() } else { "it".to_string() };
            format!("`{key}` is missing; {owner} cannot do without; add `{key}: ...`")
        }
        What::UnknownKey(key, known) => unknown(&format!("the key `{key}` is not known here"), "known", key, known),
        What::UnknownWord(word, known) => unknown(&format!("`{word}` is not known here"), "one of", word, known),
    };
    let message = without_secrets(tree, id, message);
    tree.mistake(tree.spot(id), tree.path_of(id).to_string(), &message)
}

fn unknown(what: &str, lead: &str, word: &str, known: &'static [&'static str]) -> String {
    let rule = if known.is_empty() { "it has no keys".to_string() } else { format!("{lead}: {}", known.join(", ")) };
    match nearest(word, known.iter().copied()) {
        Some(meant) => format!("{what}; {rule}; did you mean `{meant}`?"),
        None => format!("{what}; {rule}"),
    }
}

/// What came from the environment shows as it was written.
pub fn without_secrets(tree: &Tree, id: NodeId, message: String) -> String {
    match &tree.node(id).kind {
        Kind::Scalar(scalar) => match &scalar.written {
            Some(written) if !scalar.value.is_empty() => message.replace(&scalar.value, written),
            _ => message,
        },
        Kind::Seq(_) | Kind::Map(_) => message,
    }
}

/// Reads one node.
#[derive(Clone, Copy)]
struct Reader<'t> {
    tree: &'t Tree,
    id: NodeId,
}

impl<'t> Reader<'t> {
    fn child(self, id: NodeId) -> Reader<'t> {
        Reader { tree: self.tree, id }
    }

    fn any<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.tree.node(self.id).kind {
            Kind::Scalar(scalar) => match scalar.plain() {
                Plain::Null => visitor.visit_unit(),
                Plain::Bool(value) => visitor.visit_bool(value),
                Plain::Unsigned(number) => visitor.visit_u64(number),
                Plain::Signed(number) => visitor.visit_i64(number),
                Plain::Float(number) => visitor.visit_f64(number),
                Plain::Text(text) => visitor.visit_str(text),
            },
            Kind::Seq(items) => visitor.visit_seq(Items { reader: self, left: self.tree.items(items).collect::<Vec<_>>().into_iter() }),
            Kind::Map(entries) => visitor.visit_map(Entries {
                reader: self,
                left: self.tree.entries(entries).collect::<Vec<_>>().into_iter(),
                value: None,
                placeholders: self.tree.node(self.id).placeholders.iter(),
            }),
        }
    }

    /// A map or list that is written as nothing (`labels:`) is empty.
    fn or_empty<'de, V: Visitor<'de>>(self, visitor: V, is_map: bool) -> Result<V::Value, Fault> {
        let node = self.tree.node(self.id);
        let empty = node.is_null();
        if is_map && !empty && !matches!(node.kind, Kind::Map(_)) {
            // A list would be taken for the keys' values in order.
            return Err(Fault::new(What::Text(format!("found {}, expected a map, as in {{ key: value }}", node.name()))).at(self.id));
        }
        let result = match (empty, is_map) {
            (false, _) => self.any(visitor),
            (true, false) => visitor.visit_seq(Items { reader: self, left: Vec::new().into_iter() }),
            (true, true) => visitor.visit_map(Entries {
                reader: self,
                left: Vec::new().into_iter(),
                value: None,
                placeholders: self.tree.node(self.id).placeholders.iter(),
            }),
        };
        result.map_err(|fault| fault.at(self.id))
    }

    fn text<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let result = match &self.tree.node(self.id).kind {
            // `labels: { port: 80 }` means the text 80, as written.
            Kind::Scalar(scalar) if !self.tree.node(self.id).is_null() => visitor.visit_str(&scalar.value),
            _ => self.any(visitor),
        };
        result.map_err(|fault| fault.at(self.id))
    }
}

macro_rules! as_any {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            self.any(visitor).map_err(|fault| fault.at(self.id))
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Fault;

    as_any! {
        deserialize_any deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8 deserialize_u16
        deserialize_u32 deserialize_u64 deserialize_f32 deserialize_f64 deserialize_bytes deserialize_byte_buf deserialize_unit
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.text(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.text(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.text(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.text(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let result = if self.tree.node(self.id).is_null() { visitor.visit_none() } else { visitor.visit_some(self) };
        result.map_err(|fault| fault.at(self.id))
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        self.any(visitor).map_err(|fault| fault.at(self.id))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self).map_err(|fault| fault.at(self.id))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.or_empty(visitor, false)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.or_empty(visitor, false)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(self, _: &'static str, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.or_empty(visitor, false)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.or_empty(visitor, true)
    }

    fn deserialize_struct<V: Visitor<'de>>(self, _: &'static str, _: &'static [&'static str], visitor: V) -> Result<V::Value, Fault> {
        self.or_empty(visitor, true)
    }

    /// A choice: a word, or a map with one key.
    fn deserialize_enum<V: Visitor<'de>>(self, _: &'static str, known: &'static [&'static str], visitor: V) -> Result<V::Value, Fault> {
        let node = self.tree.node(self.id);
        let choices = || known.join(", ");
        let choice = match &node.kind {
            Kind::Scalar(_) if !node.is_null() => Choice { word: self, content: None },
            Kind::Map(entries) => {
                node.is_choice.set(true);
                let left: Vec<_> = self.tree.entries(entries).collect();
                match left.as_slice() {
                    [(key, value)] => Choice { word: self.child(*key), content: Some(self.child(*value)) },
                    [] => return Err(Fault::new(What::Text(format!("a choice is missing; one of: {}", choices()))).at(self.id)),
                    [(first, _), (second, _), ..] => {
                        if let Some((choice, other)) = setting_beside_choice(self.tree, *first, *second, known) {
                            let key = self.tree.text_of(other).unwrap_or_default();
                            let text = format!(
                                "the key `{key}` stands beside `{choice}`; its settings stand inside of it; write {choice}: {{ {key}: ... }}"
                            );
                            return Err(Fault::new(What::Text(text)).at(other));
                        }
                        let text = format!(
                            "only one choice can stand here, this is a second one; one of: {}; give each an entry of its own",
                            choices()
                        );
                        return Err(Fault::new(What::Text(text)).at(*second));
                    }
                }
            }
            _ => return Err(Fault::new(What::Text(format!("found {}, expected a choice; one of: {}", node.name(), choices()))).at(self.id)),
        };
        visitor.visit_enum(choice).map_err(|fault| fault.at(self.id))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }
}

/// Of two keys where a choice stands: the choice, and the key that is none.
fn setting_beside_choice(tree: &Tree, first: NodeId, second: NodeId, known: &[&'static str]) -> Option<(&'static str, NodeId)> {
    let choice = |id: NodeId| known.iter().find(|word| tree.text_of(id) == Some(**word)).copied();
    match (choice(first), choice(second)) {
        (Some(choice), None) => Some((choice, second)),
        (None, Some(choice)) => Some((choice, first)),
        _ => None,
    }
}

struct Items<'t> {
    reader: Reader<'t>,
    left: std::vec::IntoIter<NodeId>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        match self.left.next() {
            Some(id) => seed.deserialize(self.reader.child(id)).map(Some).map_err(|fault| fault.at(id)),
            None => Ok(None),
        }
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left.len())
    }
}

struct Entries<'t> {
    reader: Reader<'t>,
    left: std::vec::IntoIter<(NodeId, NodeId)>,
    value: Option<NodeId>,
    placeholders: std::slice::Iter<'t, &'static str>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        if let Some((key, value)) = self.left.next() {
            self.value = Some(value);
            return seed.deserialize(self.reader.child(key)).map(Some).map_err(|fault| fault.at(key));
        }
        self.value = None;
        match self.placeholders.next() {
            Some(key) => seed.deserialize(StrDeserializer::<Fault>::new(key)).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        match self.value {
            Some(value) => seed.deserialize(self.reader.child(value)).map_err(|fault| fault.at(value)),
            None => seed.deserialize(Placeholder).map_err(|_| Fault::new(What::Placeholder).at(self.reader.id)),
        }
    }
}

struct Choice<'t> {
    word: Reader<'t>,
    content: Option<Reader<'t>>,
}

impl<'de, 't> EnumAccess<'de> for Choice<'t> {
    type Error = Fault;
    type Variant = Content<'t>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Content<'t>), Fault> {
        let value = seed.deserialize(self.word).map_err(|fault| fault.at(self.word.id))?;
        Ok((value, Content { word: self.word, content: self.content }))
    }
}

struct Content<'t> {
    word: Reader<'t>,
    content: Option<Reader<'t>>,
}

impl<'t> Content<'t> {
    fn needed(self) -> Result<Reader<'t>, Fault> {
        let word = self.word.tree.text_of(self.word.id).unwrap_or_default().to_string();
        self.content
            .ok_or_else(|| Fault::new(What::Text(format!("`{word}` stands alone; it is a map; write {{ {word}: {{}} }}"))).at(self.word.id))
    }
}

impl<'de> VariantAccess<'de> for Content<'_> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        match self.content {
            Some(content) if !content.tree.node(content.id).is_null() => {
                let word = self.word.tree.text_of(self.word.id).unwrap_or_default();
                Err(Fault::new(What::Text(format!("`{word}` is a word without settings; write it without the colon"))).at(content.id))
            }
            _ => Ok(()),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Fault> {
        let content = self.needed()?;
        seed.deserialize(content).map_err(|fault| fault.at(content.id))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.needed()?.or_empty(visitor, false)
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Fault> {
        self.needed()?.or_empty(visitor, true)
    }
}

/// Stands in for a value that is missing, so that what comes after it is read as well. Its value is never used.
struct Placeholder;

impl<'de> Deserializer<'de> for Placeholder {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_u64(1)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_bool(false)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_str("")
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_str("")
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_none()
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_seq(de::value::SeqDeserializer::<_, Fault>::new(std::iter::empty::<u8>()))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_map(de::value::MapDeserializer::<_, Fault>::new(std::iter::empty::<(u8, u8)>()))
    }

    fn deserialize_struct<V: Visitor<'de>>(self, _: &'static str, _: &'static [&'static str], visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_map(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct enum identifier ignored_any
    }
}
