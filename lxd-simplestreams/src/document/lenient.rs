//! Reading JSON into structs as Go's decoder does: key names in any case, the last one wins,
//! `null` changes nothing or empties, unknown keys are skipped, a wrong type is an error.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;

use serde::Deserializer;
use serde::de::{self, Deserialize, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// How many entries of maps and lists a document may still have.
#[derive(Debug)]
pub(super) struct Budget(Cell<usize>);

impl Budget {
    pub(super) fn new(entries: usize) -> Self {
        Self(Cell::new(entries))
    }

    fn spend<E: de::Error>(&self) -> Result<(), E> {
        let left = self.0.get().checked_sub(1);
        self.0.set(left.ok_or_else(|| E::custom("the document has too many entries"))?);
        Ok(())
    }
}

/// A value that a document can overwrite, in part or as a whole.
pub(super) trait Take {
    /// What it is, for messages.
    const WHAT: &'static str;

    /// Reads anything but `null`.
    fn take<'de, D: Deserializer<'de>>(&mut self, from: D, budget: &Budget)
    -> Result<(), D::Error>;

    /// What `null` does to it.
    fn null(&mut self) {}
}

/// A struct with named fields.
pub(super) trait Fields {
    /// What it is, for messages.
    const WHAT: &'static str;

    /// Stores or skips the value of the field with this name, which is in lower case.
    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        value: Value<'_, A>,
    ) -> Result<(), A::Error>;
}

/// The value of a field that has not been read yet.
pub(super) struct Value<'a, A> {
    map: &'a mut A,
    budget: &'a Budget,
}

impl<'de, A: MapAccess<'de>> Value<'_, A> {
    pub(super) fn into(self, place: &mut impl Take) -> Result<(), A::Error> {
        self.map.next_value_seed(Place(place, self.budget))
    }

    pub(super) fn skip(self) -> Result<(), A::Error> {
        self.map.next_value::<IgnoredAny>().map(|_| ())
    }
}

/// Where a value goes that may be `null`.
pub(super) struct Place<'a, T>(pub(super) &'a mut T, pub(super) &'a Budget);

impl<'de, T: Take> DeserializeSeed<'de> for Place<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_option(self)
    }
}

impl<'de, T: Take> Visitor<'de> for Place<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::WHAT)
    }

    fn visit_none<E>(self) -> Result<(), E> {
        self.0.null();
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        self.0.take(from, self.1)
    }
}

/// Text in which a lone surrogate or a byte that is no UTF-8 becomes a replacement character.
struct Lossy;

impl<'de> Visitor<'de> for Lossy {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
        Ok(String::from_utf8_lossy(bytes))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        Ok(Cow::Owned(String::from_utf8_lossy(bytes).into_owned()))
    }
}

impl<'de> DeserializeSeed<'de> for Lossy {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_bytes(self)
    }
}

impl Take for String {
    const WHAT: &'static str = "a string";

    fn take<'de, D: Deserializer<'de>>(&mut self, from: D, _: &Budget) -> Result<(), D::Error> {
        *self = Lossy.deserialize(from)?.into_owned();
        Ok(())
    }
}

impl Take for bool {
    const WHAT: &'static str = "a boolean";

    fn take<'de, D: Deserializer<'de>>(&mut self, from: D, _: &Budget) -> Result<(), D::Error> {
        *self = Self::deserialize(from)?;
        Ok(())
    }
}

impl Take for i64 {
    const WHAT: &'static str = "a whole number";

    fn take<'de, D: Deserializer<'de>>(&mut self, from: D, _: &Budget) -> Result<(), D::Error> {
        *self = Self::deserialize(from)?;
        Ok(())
    }
}

impl<T: Take + Default> Take for Option<T> {
    const WHAT: &'static str = T::WHAT;

    fn take<'de, D: Deserializer<'de>>(
        &mut self,
        from: D,
        budget: &Budget,
    ) -> Result<(), D::Error> {
        self.get_or_insert_default().take(from, budget)
    }

    fn null(&mut self) {
        *self = None;
    }
}

impl<T: Take + Default> Take for BTreeMap<String, T> {
    const WHAT: &'static str = "an object";

    fn take<'de, D: Deserializer<'de>>(
        &mut self,
        from: D,
        budget: &Budget,
    ) -> Result<(), D::Error> {
        from.deserialize_map(Entries(self, budget))
    }

    fn null(&mut self) {
        self.clear();
    }
}

struct Entries<'a, T>(&'a mut BTreeMap<String, T>, &'a Budget);

impl<'de, T: Take + Default> Visitor<'de> for Entries<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key_seed(Lossy)? {
            self.1.spend()?;
            let mut value = T::default();
            map.next_value_seed(Place(&mut value, self.1))?;
            self.0.insert(key.into_owned(), value);
        }
        Ok(())
    }
}

impl<T: Take + Default> Take for Vec<T> {
    const WHAT: &'static str = "a list";

    fn take<'de, D: Deserializer<'de>>(
        &mut self,
        from: D,
        budget: &Budget,
    ) -> Result<(), D::Error> {
        from.deserialize_seq(Elements(self, budget))
    }

    fn null(&mut self) {
        self.clear();
    }
}

struct Elements<'a, T>(&'a mut Vec<T>, &'a Budget);

impl<'de, T: Take + Default> Visitor<'de> for Elements<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        self.0.clear();
        loop {
            let mut value = T::default();
            if list.next_element_seed(Place(&mut value, self.1))?.is_none() {
                return Ok(());
            }
            self.1.spend()?;
            self.0.push(value);
        }
    }
}

impl<T: Fields> Take for T {
    const WHAT: &'static str = <T as Fields>::WHAT;

    fn take<'de, D: Deserializer<'de>>(
        &mut self,
        from: D,
        budget: &Budget,
    ) -> Result<(), D::Error> {
        from.deserialize_map(Named(self, budget))
    }
}

struct Named<'a, T>(&'a mut T, &'a Budget);

impl<'de, T: Fields> Visitor<'de> for Named<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(<T as Fields>::WHAT)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(mut name) = map.next_key_seed(Lossy)? {
            if name.bytes().any(|byte| byte.is_ascii_uppercase() || !byte.is_ascii()) {
                name = Cow::Owned(name.chars().map(fold).collect());
            }
            self.0.field(&name, Value { map: &mut map, budget: self.1 })?;
        }
        Ok(())
    }
}

/// Letters that Go takes for the same: cases, and two letters that only look foreign.
fn fold(letter: char) -> char {
    match letter {
        'ſ' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    }
}
