//! Join tokens, and devices that use them.

use super::FleetError;
use super::refusals::MAX_REFUSALS;
use super::state::State;
use super::token::{self, TokenRecord};
use sandpiper_core::digest::Digest;
use sandpiper_core::event::Severity;
use sandpiper_core::fleet::Refused;
use sandpiper_core::names::DeviceName;
use sandpiper_core::time::Millis;
use sandpiper_proto::convert::{Credentials, EnrolRequest, JoinTokenRequest, ResourceKind};
use sandpiper_transport::token::JoinToken;
use std::time::Duration;

/// Longest life of a token: who has not joined within a month was forgotten.
pub(super) const MAX_TTL: Duration = Duration::from_secs(30 * 86_400);
/// Most tokens kept. Used and expired ones make room first.
pub(super) const MAX_TOKENS: usize = 10_000;

/// A token that was just made; its secret is known only here.
#[derive(Clone)]
pub struct NewToken {
    /// Public name.
    pub id: String,
    /// One-time secret.
    pub secret: String,
}

impl State {
    /// Makes a join token.
    ///
    /// # Errors
    /// [`Refused::Invalid`] for a life that is too long, [`Refused::Full`].
    pub fn create_token(
        &mut self,
        now: Millis,
        actor: &str,
        request: JoinTokenRequest,
    ) -> Result<NewToken, FleetError> {
        if request.ttl > MAX_TTL {
            let days = MAX_TTL.as_secs() / 86_400;
            let text = format!("a join token lives at most {days} days");
            return Err(Refused::Invalid(text).into());
        }
        if self.tokens.len() >= MAX_TOKENS {
            self.forget_spent_tokens(now);
        }
        if self.tokens.len() >= MAX_TOKENS {
            let text = format!("{MAX_TOKENS} join tokens are open: revoke some");
            return Err(Refused::Full(text).into());
        }
        let secret = JoinToken::new_secret()?;
        let hash = JoinToken::hash_secret(&secret);
        let id = hash.short();
        let record = TokenRecord {
            id: id.clone(),
            secret: hash,
            labels: request.labels,
            description: request.description,
            created_by: actor.to_owned(),
            created_at: now,
            expires_at: now.plus(request.ttl),
            used_by: None,
            revoked: false,
        };
        self.keep_token(record);
        let text = format!("good for {} s", request.ttl.as_secs());
        self.fleet.tell(
            now,
            Severity::Info,
            format!("join-token/{id}"),
            actor,
            "Created",
            text,
        );
        Ok(NewToken { id, secret })
    }

    fn keep_token(&mut self, record: TokenRecord) {
        let out = self.fleet.outbox();
        out.keep(token::key(&record.id), &record);
        out.changed(ResourceKind::JoinTokens, &record.id);
        self.tokens.insert(record.id.clone(), record);
    }

    fn forget_spent_tokens(&mut self, now: Millis) {
        let spent = |t: &TokenRecord| t.used_by.is_some() || t.revoked || t.expires_at <= now;
        for (id, _) in self.tokens.extract_if(.., |_, t| spent(t)) {
            self.fleet.outbox().delete(token::key(&id));
        }
    }

    /// Takes a token back.
    ///
    /// # Errors
    /// [`Refused::NotFound`].
    pub fn revoke_token(&mut self, now: Millis, actor: &str, id: &str) -> Result<(), FleetError> {
        let token = self.tokens.get(id);
        let mut token = token
            .cloned()
            .ok_or_else(|| Refused::not_found("join token", id))?;
        token.revoked = true;
        self.keep_token(token);
        let text = "it lets nobody in any more".to_owned();
        self.fleet.tell(
            now,
            Severity::Info,
            format!("join-token/{id}"),
            actor,
            "Revoked",
            text,
        );
        Ok(())
    }

    /// Lets a device in: spends the token and issues its first certificate. Refusals are noted.
    ///
    /// # Errors
    /// [`Refused::Denied`] for a token that is unknown, used, expired or revoked,
    /// [`Refused::Conflict`] for a name that is taken, [`FleetError::Pki`].
    pub fn enrol(
        &mut self,
        now: Millis,
        request: EnrolRequest,
    ) -> Result<(DeviceName, Credentials), FleetError> {
        let name = request.name.clone();
        let result = self.try_enrol(now, request);
        if let Err(error) = &result {
            self.note_refusal(now, &name, error);
        }
        result
    }

    /// Notes a refusal, unless there were many just now: anybody may ask, and events must not
    /// be washed away by asking.
    fn note_refusal(&mut self, now: Millis, name: &DeviceName, error: &FleetError) {
        let (subject, text) = match self.refusals.count(now) {
            0..MAX_REFUSALS => (
                format!("device/{name}"),
                format!("enrolment refused: {error}"),
            ),
            MAX_REFUSALS => (
                "controller/enrolment".to_owned(),
                format!("more than {MAX_REFUSALS} refusals within a minute: the rest is not noted"),
            ),
            _ => return,
        };
        let (actor, reason) = (name.as_str(), "EnrolRefused");
        self.fleet
            .tell(now, Severity::Warning, subject, actor, reason, text);
    }

    fn try_enrol(
        &mut self,
        now: Millis,
        request: EnrolRequest,
    ) -> Result<(DeviceName, Credentials), FleetError> {
        let mut token = self.usable_token(now, &request.token)?;
        let name = request.name;
        self.fleet.may_enrol(&name)?;
        let credentials = self.credentials(now, &name, &request.csr_der)?;
        // What the operator put on the token wins over what the device says.
        let mut labels = request.labels;
        labels.extend(token.labels.clone());
        token.used_by = Some(name.clone());
        let text = format!("joined with token {}", token.id);
        self.keep_token(token);
        self.fleet.enrol(now, &name, labels)?;
        self.fleet.tell(
            now,
            Severity::Info,
            format!("device/{name}"),
            name.as_str(),
            "Enrolled",
            text,
        );
        Ok((name, credentials))
    }

    fn usable_token(&self, now: Millis, secret: &str) -> Result<TokenRecord, Refused> {
        let hash: Digest = JoinToken::hash_secret(secret);
        let denied = |text: &str| Err(Refused::Denied(text.to_owned()));
        match self.tokens.get(&hash.short()).filter(|t| t.secret == hash) {
            None => denied("the join token is not known here: ask for a new one"),
            Some(t) if t.used_by.is_some() => {
                denied("the join token was used already: every device needs its own")
            }
            Some(t) if t.revoked => denied("the join token was revoked: ask for a new one"),
            Some(t) if t.expires_at <= now => {
                denied("the join token has expired: ask for a new one")
            }
            Some(t) => Ok(t.clone()),
        }
    }

    fn credentials(
        &self,
        now: Millis,
        name: &DeviceName,
        csr_der: &[u8],
    ) -> Result<Credentials, FleetError> {
        Ok(Credentials {
            chain_der: self.authority.ca.issue_device(name, csr_der, now)?,
            assignment_key: self.authority.assignment.public_key(),
            publisher_keys: self.authority.publishers.keys().copied().collect(),
        })
    }

    /// A new certificate for a device that has one.
    ///
    /// # Errors
    /// [`Refused::Denied`] for a revoked or unknown device, [`FleetError::Pki`].
    pub fn renew(
        &mut self,
        now: Millis,
        name: &DeviceName,
        csr_der: &[u8],
    ) -> Result<Credentials, FleetError> {
        self.fleet.admit(name)?;
        self.credentials(now, name, csr_der)
    }
}
