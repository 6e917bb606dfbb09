//! The one name that rumqttc 0.25 takes from webpki 0.102, an error variant that it never makes. The real crate would bring
//! a second crypto provider into every binary.

use std::{error, fmt};

/// Cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {}

impl fmt::Display for Error {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

impl error::Error for Error {}
