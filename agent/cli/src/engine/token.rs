//! `adit engine token`: a token for an agent or a user of the API.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use adit_plugins::identity::token::{Authority, Claims, Permission, TokenKind};
use anyhow::{Context, bail};
use clap::Args;

use super::ConfigArgs;

/// Print a token for an agent, signed with the engine's secret
#[derive(Debug, Args)]
#[command(after_help = "\
Without --permission the token may do everything.
Permissions: tunnels.tunnels.create-delete (be an agent), tunnels.streams.create-delete (connect to
tunnels), tunnels.resources.read-only (list them).")]
pub(crate) struct TokenArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Whom the token stands for, as listed beside what it is used for
    #[arg(long, value_name = "NAME")]
    subject: Option<String>,
    /// When it ends, from now, such as `12h` or `30d`; without it, never
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    expires_in: Option<Duration>,
    /// What it allows; may be given more than once
    #[arg(long = "permission", short, value_name = "PERMISSION")]
    permissions: Vec<String>,
}

pub(super) fn run(args: &TokenArgs) -> anyhow::Result<()> {
    let config = args.config.load()?;
    let authority = Authority::new(&config.auth.jwt_secret)?;
    let claims = claims(args, SystemTime::now())?;
    let token = authority.mint(&claims).context("cannot sign the token")?;
    println!("{token}");
    Ok(())
}

fn claims(args: &TokenArgs, now: SystemTime) -> anyhow::Result<Claims> {
    let now = now
        .duration_since(UNIX_EPOCH)
        .context("this machine's clock is before 1970")?;
    let exp = match args.expires_in {
        Some(life) if life.is_zero() => bail!("--expires-in: the token would be over at once"),
        Some(life) => Some(now.checked_add(life).context("--expires-in: too long")?),
        None => None,
    };
    for permission in &args.permissions {
        if permission.parse::<Permission>().is_err() {
            let known: Vec<&str> = Permission::ALL.iter().map(|known| known.as_str()).collect();
            bail!(
                "--permission: unknown permission `{permission}`, use one of {}",
                known.join(", ")
            );
        }
    }
    let seconds = |time: Duration| time.as_secs() as f64;
    let limited = !args.permissions.is_empty();
    Ok(Claims {
        // A token without a kind is the operator's own and may do everything.
        kind: limited.then_some(TokenKind::Auth),
        user_id: limited.then(|| args.subject.clone()).flatten(),
        sub: args.subject.clone(),
        permissions: limited.then(|| args.permissions.clone()),
        iat: Some(seconds(now)),
        exp: exp.map(seconds),
        ..Claims::default()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use adit_config::Secret;

    use super::*;

    fn args(permissions: &[&str], expires_in: Option<Duration>) -> TokenArgs {
        TokenArgs {
            config: ConfigArgs {
                config: "engine.toml".into(),
            },
            subject: Some("laptop".to_owned()),
            expires_in,
            permissions: permissions.iter().map(|text| (*text).to_owned()).collect(),
        }
    }

    #[test]
    fn a_token_says_who_and_until_when() {
        let authority = Authority::new(&Secret::new("k".repeat(32))).unwrap();
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let args = args(&[], Some(Duration::from_secs(60)));
        let token = authority.mint(&claims(&args, now).unwrap()).unwrap();
        let principal = authority.verify(&token, now).unwrap();
        assert_eq!(principal.user_id, "laptop");
        assert!(principal.allows(Permission::CreateTunnels));
        let later = now + Duration::from_secs(60);
        assert!(authority.verify(&token, later).is_err());
    }

    #[test]
    fn a_limited_token_allows_only_what_it_names() {
        let authority = Authority::new(&Secret::new("k".repeat(32))).unwrap();
        let now = SystemTime::now();
        let args = args(&["tunnels.resources.read-only"], None);
        let token = authority.mint(&claims(&args, now).unwrap()).unwrap();
        let principal = authority.verify(&token, now).unwrap();
        assert_eq!(principal.user_id, "laptop");
        assert!(principal.allows(Permission::ReadResources));
        assert!(!principal.allows(Permission::CreateTunnels));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let now = SystemTime::now();
        let error = claims(&args(&["everything"], None), now).unwrap_err();
        assert!(error.to_string().contains("`everything`"), "{error}");
        assert!(claims(&args(&[], Some(Duration::ZERO)), now).is_err());
        assert!(claims(&args(&[], Some(Duration::MAX)), now).is_err());
    }
}
