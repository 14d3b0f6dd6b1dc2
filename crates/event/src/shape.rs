//! Lenient objects: typed fields for what is documented, and a `rest` for everything else.
//!
//! The rule, everywhere: a field whose value has the documented shape goes into the typed field. Any other value, and
//! any other field, stays in `rest` as it is. So nothing that is inside of an entity can fail, and what was read is
//! written again whole.
//!
//! Whether a value has the shape is asked first ([`Shape::fits`]), and only then it is taken apart: so there is never
//! half of a value to put back.

use serde::de::{self, Deserialize, Deserializer};
use serde_json::{Map, Number, Value};

/// A shape that a JSON value can have.
pub(crate) trait Shape: Sized {
    /// Whether the value has this shape.
    fn fits(value: &Value) -> bool;

    /// The value as this type; `None` when it does not fit.
    fn take(value: Value) -> Option<Self>;
}

/// Moves a field out of the object, if it is there and has the shape.
pub(crate) fn take<T: Shape>(object: &mut Map<String, Value>, key: &str) -> Option<T> {
    if !T::fits(object.get(key)?) {
        return None;
    }
    T::take(object.remove(key)?)
}

/// Reads a value that must have the shape.
pub(crate) fn deserialize<'de, T: Shape, D: Deserializer<'de>>(
    deserializer: D,
    expected: &'static str,
) -> Result<T, D::Error> {
    let value = Value::deserialize(deserializer)?;
    T::take(value).ok_or_else(|| de::Error::custom(format_args!("expected {expected}")))
}

impl Shape for String {
    fn fits(value: &Value) -> bool {
        value.is_string()
    }

    fn take(value: Value) -> Option<Self> {
        if let Value::String(text) = value { Some(text) } else { None }
    }
}

impl Shape for Number {
    fn fits(value: &Value) -> bool {
        value.is_number()
    }

    fn take(value: Value) -> Option<Self> {
        if let Value::Number(number) = value { Some(number) } else { None }
    }
}

impl Shape for i64 {
    fn fits(value: &Value) -> bool {
        value.is_i64()
    }

    fn take(value: Value) -> Option<Self> {
        value.as_i64()
    }
}

impl<T: Shape> Shape for Vec<T> {
    fn fits(value: &Value) -> bool {
        value.as_array().is_some_and(|items| items.iter().all(T::fits))
    }

    fn take(value: Value) -> Option<Self> {
        if let Value::Array(items) = value { items.into_iter().map(T::take).collect() } else { None }
    }
}

impl Shape for Map<String, Value> {
    fn fits(value: &Value) -> bool {
        value.is_object()
    }

    fn take(value: Value) -> Option<Self> {
        if let Value::Object(object) = value { Some(object) } else { None }
    }
}

/// Declares a lenient object: every field is an `Option`, and its name is its key.
macro_rules! object {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq)]
        #[non_exhaustive]
        pub struct $name {
            $($(#[$doc])* pub $field: Option<$type>,)*
            /// Every other field, and those above whose value has another shape.
            pub rest: serde_json::Map<String, serde_json::Value>,
        }

        impl crate::shape::Shape for $name {
            fn fits(value: &serde_json::Value) -> bool {
                value.is_object()
            }

            fn take(value: serde_json::Value) -> Option<Self> {
                let serde_json::Value::Object(mut rest) = value else { return None };
                Some($name { $($field: crate::shape::take(&mut rest, stringify!($field)),)* rest })
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                crate::shape::deserialize(deserializer, "an object")
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeMap;

                let mut object = serializer.serialize_map(None)?;
                $(if let Some(value) = &self.$field {
                    object.serialize_entry(stringify!($field), value)?;
                })*
                for (key, value) in &self.rest {
                    // A typed field that was set later replaces the odd value that was read.
                    let replaced = match key.as_str() {
                        $(stringify!($field) => self.$field.is_some(),)*
                        _ => false,
                    };
                    if !replaced {
                        object.serialize_entry(key, value)?;
                    }
                }
                object.end()
            }
        }
    };
}

pub(crate) use object;
