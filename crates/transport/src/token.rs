//! The string that an operator carries to a device so that it can join.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom as _, SystemRandom};
use sandpiper_core::digest::Digest;
use sandpiper_core::names::FleetName;
use serde::{Deserialize, Serialize};

const PREFIX: &str = "sandpiper-join1.";
/// A token string has about 300 characters; far longer ones are not looked at.
const MAX_CHARS: usize = 4096;
/// 256 random bits: not to be guessed, and safe to store as a plain hash.
const SECRET_BYTES: usize = 32;

/// Everything a device needs to reach and recognise its controller, and to be let in once.
/// Text form: `sandpiper-join1.` and base64url of JSON, so that it can be pasted anywhere.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinToken {
    /// Host and port of the controller's device listener.
    pub address: String,
    /// The fleet.
    pub fleet: FleetName,
    /// Digest of the DER of the fleet's certificate authority.
    pub ca_pin: Digest,
    /// The one-time secret.
    pub secret: String,
}

/// The one answer to every malformed token; which byte is wrong helps nobody who pastes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is not a join token: paste the whole string that `sandpiper join-token create` printed; it begins with `{PREFIX}`"
)]
pub struct TokenError;

impl JoinToken {
    /// A new random secret.
    ///
    /// # Errors
    /// [`crate::signing::KeyError::Random`] when the system gives no randomness.
    pub fn new_secret() -> Result<String, crate::signing::KeyError> {
        let mut bytes = [0; SECRET_BYTES];
        SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| crate::signing::KeyError::Random)?;
        Ok(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// What a controller stores instead of a secret.
    pub fn hash_secret(secret: &str) -> Digest {
        Digest::of(&[b"sandpiper-join-secret-v1\0", secret.as_bytes()].concat())
    }
}

impl std::fmt::Debug for JoinToken {
    /// Without the secret, so that it cannot reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinToken")
            .field("address", &self.address)
            .field("fleet", &self.fleet)
            .field("ca_pin", &self.ca_pin)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Display for JoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let json = serde_json::to_vec(self).map_err(|_| std::fmt::Error)?;
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(json))
    }
}

impl std::str::FromStr for JoinToken {
    type Err = TokenError;
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.len() > MAX_CHARS {
            return Err(TokenError);
        }
        let body = text.strip_prefix(PREFIX).ok_or(TokenError)?;
        let json = URL_SAFE_NO_PAD.decode(body).map_err(|_| TokenError)?;
        let token: Self = serde_json::from_slice(&json).map_err(|_| TokenError)?;
        if token.address.is_empty() || token.secret.is_empty() {
            return Err(TokenError);
        }
        Ok(token)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn token() -> JoinToken {
        JoinToken {
            address: "pi.example:7443".into(),
            fleet: FleetName::new("garden").unwrap(),
            ca_pin: Digest::of(b"ca"),
            secret: JoinToken::new_secret().unwrap(),
        }
    }

    #[test]
    fn text_and_back_with_the_blanks_of_a_paste() {
        let token = token();
        assert_eq!(format!(" {token}\n").parse(), Ok(token));
    }

    #[test]
    fn every_malformed_token_gets_the_same_clear_message() {
        let whole = token().to_string();
        let json = URL_SAFE_NO_PAD.encode(br#"{"address":"a"}"#);
        let cut = &whole[..whole.len() - 5];
        let long = format!("{PREFIX}{}", "A".repeat(MAX_CHARS));
        let other = whole.replace("join1", "join2");
        for bad in [
            "",
            "sandpiper-join1.",
            cut,
            &format!("{PREFIX}{json}"),
            &long,
            &other,
        ] {
            assert_eq!(bad.parse::<JoinToken>(), Err(TokenError), "{bad}");
        }
        assert!(
            TokenError
                .to_string()
                .contains("sandpiper join-token create")
        );
    }

    #[test]
    fn the_secret_is_random_hashed_and_never_shown() {
        let token = token();
        assert_ne!(token.secret, JoinToken::new_secret().unwrap());
        assert_ne!(
            JoinToken::hash_secret(&token.secret),
            Digest::of(token.secret.as_bytes())
        );
        assert!(!format!("{token:?}").contains(&token.secret));
    }
}
