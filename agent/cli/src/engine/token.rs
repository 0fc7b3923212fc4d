//! `adit engine token`: a token for an agent or a user of the API.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use adit_config::Config;
use adit_plugins::identity::token::{
    Audience, Authority, Claims, Permission, Resources, TokenKind, TunnelResource,
};
use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Map, Value, json};

use super::ConfigArgs;

/// Print a token for an agent, signed with the engine's secret
#[derive(Debug, Args)]
#[command(after_help = "\
Without --permission the token may do everything, within its --project, if it has one.
Permissions: tunnels.tunnels.create-delete (be an agent), tunnels.streams.create-delete (connect to
tunnels), tunnels.resources.read-only (list them).
With --tunnel or --path it is for visitors of tunnels that ask for a token, and good for nothing else.

Examples:
  adit engine token --subject laptop                         for an agent
  adit engine token --tunnel wiki --path '/docs/*' --expires-in 1h
                                                             for a visitor of one tunnel")]
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
    /// For whom it is, as `[auth] audience` names it
    #[arg(long, value_name = "NAME")]
    audience: Option<String>,
    /// The project it is good for; may be given more than once
    #[arg(long = "project", value_name = "PROJECT")]
    projects: Vec<String>,
    /// The name of the tunnel it lets connect to
    #[arg(long, value_name = "NAME")]
    tunnel: Option<String>,
    /// The path it lets connect to, such as `/ws`, or `/docs/*` for all beneath; may be given more
    /// than once
    #[arg(long = "path", value_name = "PATH")]
    paths: Vec<String>,
}

pub(super) fn run(args: &TokenArgs) -> anyhow::Result<()> {
    let config = args.config.load()?;
    let authority = Authority::new(&config.auth.jwt_secret)?;
    check_projects(args, &config)?;
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
    let boundary = boundary(args)?;
    let limited = !args.permissions.is_empty() || boundary.is_some();
    let permitted = !args.permissions.is_empty();
    Ok(Claims {
        // A token without a kind is the operator's own and may do everything.
        kind: limited.then_some(TokenKind::Auth),
        user_id: limited.then(|| args.subject.clone()).flatten(),
        sub: args.subject.clone(),
        permissions: permitted.then(|| args.permissions.clone()),
        aud: args.audience.clone().map(Audience::One),
        resources: boundary.map(|tunnels| Resources { tunnels }),
        iat: Some(seconds(now)),
        exp: exp.map(seconds),
        ..Claims::default()
    })
}

/// A project that is not there is a slip that would make the token worthless.
fn check_projects(args: &TokenArgs, config: &Config) -> anyhow::Result<()> {
    for project in &args.projects {
        if config.project(project).is_none() {
            let known: Vec<&str> = config.projects.keys().map(String::as_str).collect();
            bail!(
                "--project: no project `{project}` in this configuration, use one of {}",
                known.join(", ")
            );
        }
    }
    Ok(())
}

/// Where it is good for something (the claim `resources.tunnels`), if that is limited.
fn boundary(args: &TokenArgs) -> anyhow::Result<Option<Value>> {
    let connects = args.tunnel.is_some() || !args.paths.is_empty();
    let connecting = Permission::CreateStreams.as_str();
    if connects
        && !args.permissions.is_empty()
        && !args.permissions.iter().any(|text| text == connecting)
    {
        bail!("--tunnel, --path: of no use without the permission {connecting}");
    }
    let mut leaf = Map::new();
    if !args.projects.is_empty() {
        leaf.insert("projects".to_owned(), json!(args.projects));
    }
    if connects {
        let mut connect = Map::new();
        if let Some(name) = &args.tunnel {
            connect.insert("filters".to_owned(), json!({ "name": name }));
        }
        if !args.paths.is_empty() {
            let rules: anyhow::Result<Vec<Value>> =
                args.paths.iter().map(|path| path_rule(path)).collect();
            let rule = json!({ "OR": rules? });
            connect.insert("params".to_owned(), json!({ "path": rule }));
        }
        let scopes = json!({ "tunnels": { "connect": connect } });
        leaf.insert("scopes".to_owned(), scopes);
    }
    if leaf.is_empty() {
        return Ok(None);
    }
    let claim = Value::Object(leaf);
    TunnelResource::parse(&claim).context("the token's limits")?;
    Ok(Some(claim))
}

fn path_rule(path: &str) -> anyhow::Result<Value> {
    if !path.starts_with('/') {
        bail!("--path: `{path}` is no path, it begins with `/`");
    }
    let Some(above) = path.strip_suffix("/*") else {
        return match path.contains('*') {
            true => bail!("--path: `{path}`: a `*` stands at the end, after a `/`"),
            false => Ok(json!(path)),
        };
    };
    Ok(json!({ "regex": format!("^{}/", regex::escape(above)) }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use adit_config::Secret;
    use adit_plugins::identity::token::Place;

    use super::*;

    fn args(permissions: &[&str], expires_in: Option<Duration>) -> TokenArgs {
        TokenArgs {
            config: ConfigArgs {
                config: "engine.toml".into(),
            },
            subject: Some("laptop".to_owned()),
            expires_in,
            permissions: permissions.iter().map(|text| (*text).to_owned()).collect(),
            audience: None,
            projects: Vec::new(),
            tunnel: None,
            paths: Vec::new(),
        }
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn a_token_for_one_tunnel_and_path_is_good_for_nothing_else() {
        let authority = Authority::new(&Secret::new("k".repeat(32))).unwrap();
        let now = SystemTime::now();
        let args = TokenArgs {
            projects: texts(&["default"]),
            tunnel: Some("wiki".to_owned()),
            paths: texts(&["/ws", "/docs.v1/*"]),
            ..args(&[], None)
        };
        let token = authority.mint(&claims(&args, now).unwrap()).unwrap();
        let principal = authority.verify(&token, now).unwrap();
        assert_eq!(principal.user_id, "laptop");
        let place = |project| Place {
            project,
            workspace: None,
        };
        for (project, name, path, allowed) in [
            ("default", "wiki", "/ws", true),
            ("default", "wiki", "/docs.v1/a/b", true),
            ("default", "wiki", "/docs.v1/", true),
            ("default", "wiki", "/docs.v1", false),
            ("default", "wiki", "/docsXv1/a", false),
            ("default", "wiki", "/ws/x", false),
            ("default", "shop", "/ws", false),
            ("other", "wiki", "/ws", false),
        ] {
            let mut tunnel = Map::new();
            tunnel.insert("name".to_owned(), json!(name));
            assert_eq!(
                principal.may_connect(place(project), &tunnel, Some(path)),
                allowed,
                "{project} {name} {path}"
            );
            assert!(!principal.may_create(place(project), &tunnel));
        }
        assert!(!principal.may_list());
    }

    #[test]
    fn a_token_for_a_project_may_do_everything_there() {
        let authority = Authority::new(&Secret::new("k".repeat(32))).unwrap();
        let now = SystemTime::now();
        let args = TokenArgs {
            projects: texts(&["shop"]),
            audience: Some("edge".to_owned()),
            ..args(&[], None)
        };
        let claims = claims(&args, now).unwrap();
        assert!(matches!(&claims.aud, Some(Audience::One(name)) if name == "edge"));
        let token = authority.mint(&claims).unwrap();
        let principal = authority.verify(&token, now).unwrap();
        for (project, reached) in [("shop", true), ("default", false)] {
            let workspace = None;
            let place = Place { project, workspace };
            assert_eq!(principal.may_create(place, &Map::new()), reached);
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
        for (permissions, path) in [
            (&[][..], "docs"),
            (&[], "/docs*"),
            (&[], "/*/x"),
            (&["tunnels.resources.read-only"], "/docs"),
        ] {
            let args = TokenArgs {
                paths: texts(&[path]),
                ..args(permissions, None)
            };
            let error = claims(&args, now).unwrap_err().to_string();
            assert!(error.contains("--path"), "{error}");
        }
    }
}
