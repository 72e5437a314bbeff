//! Who a certificate speaks for.

use sandpiper_core::names::{ActorName, DeviceName, FleetName, NameError};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Kinds of identity. A publisher signs versions, an operator steers, a device only speaks for
/// itself, a controller serves them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IdentityKind {
    /// A device.
    Device,
    /// An operator.
    Operator,
    /// A publisher.
    Publisher,
    /// A controller.
    Controller,
}

impl IdentityKind {
    const ALL: [Self; 4] = [
        Self::Device,
        Self::Operator,
        Self::Publisher,
        Self::Controller,
    ];

    /// Its part of the identity's URI.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Operator => "operator",
            Self::Publisher => "publisher",
            Self::Controller => "controller",
        }
    }
}

impl std::fmt::Display for IdentityKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// An identity of a fleet. Text form: `spiffe://<fleet>/<kind>/<name>`, the URI of its
/// certificate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// The fleet it belongs to.
    pub fleet: FleetName,
    /// What it is.
    pub kind: IdentityKind,
    /// Its name.
    pub name: ActorName,
}

/// Why a certificate gives no identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not an X.509 certificate.
    #[error("the certificate cannot be parsed; is it DER of X.509 version 3?")]
    Parse,
    /// It must have exactly one URI.
    #[error("the certificate has {0} URI names where exactly one is expected")]
    Uris(usize),
    /// The URI is not one of a fleet.
    #[error("`{0}` is not an identity: spiffe://<fleet>/<kind>/<name> is expected")]
    Uri(String),
    /// A part of the URI is not a name.
    #[error("the identity holds no valid name")]
    Name(#[from] NameError),
}

impl Identity {
    /// The identity of a device.
    pub fn device(fleet: &FleetName, name: &DeviceName) -> Self {
        let name = ActorName::new(name.as_str()).expect("the rule of all names is the same");
        Self {
            fleet: fleet.clone(),
            kind: IdentityKind::Device,
            name,
        }
    }

    /// The device's name, when it is one.
    pub fn device_name(&self) -> Option<DeviceName> {
        match self.kind {
            IdentityKind::Device => DeviceName::new(self.name.as_str()).ok(),
            IdentityKind::Operator | IdentityKind::Publisher | IdentityKind::Controller => None,
        }
    }

    /// The identity that a certificate names. Its signature is for TLS to check.
    ///
    /// # Errors
    /// [`IdentityError`] when it is no certificate of a fleet.
    pub fn of_certificate(der: &[u8]) -> Result<Self, IdentityError> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| IdentityError::Parse)?;
        let names = certificate
            .subject_alternative_name()
            .map_err(|_| IdentityError::Parse)?
            .map(|extension| extension.value.general_names.as_slice())
            .unwrap_or_default();
        let uris: Vec<&str> = names
            .iter()
            .filter_map(|name| match name {
                GeneralName::URI(uri) => Some(*uri),
                _ => None,
            })
            .collect();
        match uris.as_slice() {
            [uri] => uri.parse(),
            _ => Err(IdentityError::Uris(uris.len())),
        }
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "spiffe://{}/{}/{}", self.fleet, self.kind, self.name)
    }
}

impl std::str::FromStr for Identity {
    type Err = IdentityError;
    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let bad = || IdentityError::Uri(text.chars().take(200).collect());
        let mut parts = text.strip_prefix("spiffe://").ok_or_else(bad)?.split('/');
        let (Some(fleet), Some(kind), Some(name), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(bad());
        };
        let kind = IdentityKind::ALL
            .into_iter()
            .find(|known| known.as_str() == kind);
        Ok(Self {
            fleet: FleetName::new(fleet)?,
            kind: kind.ok_or_else(bad)?,
            name: ActorName::new(name)?,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let fleet = FleetName::new("garden").unwrap();
        let identity = Identity::device(&fleet, &DeviceName::new("shed-1").unwrap());
        assert_eq!(identity.to_string(), "spiffe://garden/device/shed-1");
        assert_eq!(identity.to_string().parse(), Ok(identity));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "https://garden/device/shed-1",
            "spiffe://garden/device",
            "spiffe://garden/device/shed-1/more",
            "spiffe://garden/root/shed-1",
            "spiffe://garden/Device/shed-1",
            "spiffe:///device/shed-1",
            "spiffe://garden/device/",
            "spiffe://garden/device/Shed",
        ] {
            assert!(text.parse::<Identity>().is_err(), "{text}");
        }
    }
}
