//! `adit plugin test`: the cases of a file, on the engine's own chain and host.

mod cases;
mod judge;
mod run;
mod world;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use adit_config::{Plugin as Table, Problem};
use adit_proxy::engine::plugin_settings;
use adit_proxy::env::{Load, World};
use adit_wasm::{Plugin, Spent};
use anyhow::{Context as _, anyhow};
use clap::Args;
use serde::Serialize;
use tracing_subscriber::layer::SubscriberExt as _;

use self::cases::{Case, Cases};
use self::judge::{Difference, Judge};
use self::run::{Came, Verdict};
use self::world::{Lines, Stubs};
use super::check;
use super::grouped;
use crate::terminal::clean;

/// The file of cases, where none is named.
pub(super) const CASES: &str = "cases.toml";

/// Try a component on the cases of a file
#[derive(Debug, Args)]
#[command(after_help = "\
Each case is one request, and what should come of it. It runs on the host and in the chain that
engines have, with a store of its own; nothing is sent anywhere.

  [plugin]                     # stage, grants and limits, as in the engine's configuration
  allow-hosts = [\"api.example.com\"]

  [config]                     # the filter's table, for cases that have none of their own
  worst = 75

  [[case]]
  name = \"an address of ill repute is refused\"
  request = { path = \"/a?b\", headers = { accept = \"*/*\" }, from = \"203.0.113.7\", country = \"DE\" }
  stubs = [{ url = \"https://api.example.com/203.0.113.7\", body = '{\"score\": 90}' }]
  expect = { verdict = \"refuse\", reason = \"ip\" }
  max-fuel = 1_000_000

`vendor/adit/wit/README.md` in a filter's project lists every key.

Exit status: 0 if everything came as expected, 1 if not.

Examples:
  adit plugin test only-browsers.wasm
  adit plugin test only-browsers.wasm more-cases.toml --json")]
pub(super) struct TestArgs {
    /// The component
    file: PathBuf,
    /// The cases [default: cases.toml beside the component]
    cases: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl TestArgs {
    /// For this component, with the cases beside it.
    pub(super) fn new(file: PathBuf) -> Self {
        Self {
            file,
            cases: None,
            json: false,
        }
    }
}

/// What came of all cases.
#[derive(Serialize)]
struct Report {
    passed: usize,
    failed: usize,
    cases: Vec<Tried>,
}

/// What came of one case.
#[derive(Serialize)]
struct Tried {
    name: String,
    /// Where it is written.
    origin: String,
    passed: bool,
    /// Of all its hooks together.
    fuel: u64,
    hooks: u64,
    microseconds: u64,
    differences: Vec<Difference>,
    log: Vec<String>,
}

pub(super) fn test(args: &TestArgs) -> anyhow::Result<ExitCode> {
    let beside = || args.file.parent().unwrap_or(Path::new("")).join(CASES);
    let path = args.cases.clone().unwrap_or_else(beside);
    let cases = Cases::load(&path).map_err(|problems| wrong(&path, &problems))?;
    let bytes = check::read(&args.file)?;
    let lines = Lines::default();
    let subscriber = tracing_subscriber::registry().with(lines.clone());
    let bench = Bench::new(&args.file, &path, &bytes, &cases, lines)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    // What filters log is theirs to be judged by, on this thread alone.
    let report = tracing::subscriber::with_default(subscriber, || {
        runtime.block_on(bench.every_case(&cases))
    })?;
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&report)?),
        false => print!("{}", told(&report)),
    }
    Ok(match report.failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// Every problem of the file on a line of its own, and how many there are.
fn wrong(path: &Path, problems: &[Problem]) -> anyhow::Error {
    for problem in problems {
        eprintln!("{}", clean(&problem.to_string()));
    }
    let shown = path.display();
    match problems.len() {
        1 => anyhow!("one problem with `{shown}`"),
        count => anyhow!("{count} problems with `{shown}`"),
    }
}

/// A component, ready to be tried.
struct Bench {
    plugin: Plugin,
    load: Load,
    spent: Arc<Spent>,
    lines: Lines,
}

impl Bench {
    fn new(
        file: &Path,
        path: &Path,
        bytes: &[u8],
        cases: &Cases,
        lines: Lines,
    ) -> anyhow::Result<Self> {
        let section = cases.section.below("plugin");
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        let table = Table::of_section(&section, &name, file.to_owned())
            .map_err(|problems| wrong(path, &problems))?;
        let runtime = check::runtime()?;
        let mut settings = plugin_settings(&table, runtime.memory_of(bytes))
            .map_err(|error| wrong(path, &[section.problem(Some("stage"), error.to_string())]))?;
        // What is limited is lines in a second, and cases take next to no time.
        let repeats = cases.cases.iter().map(|case| case.repeat.0).max();
        settings.limits.log_lines = settings
            .limits
            .log_lines
            .saturating_mul(repeats.unwrap_or(1));
        let world = World::for_check().context("there is nothing to run it in")?;
        let load = world.load();
        let env = load.env(&format!("plugin/{name}"));
        let spent = Arc::new(Spent::default());
        let plugin = Plugin::load(&runtime, settings, bytes, env)
            .map_err(|error| {
                let why = clean(&error.to_string());
                anyhow!("`{}` is not loadable: {why}", file.display())
            })?
            .counted(Arc::clone(&spent));
        let sha256 = hex::encode(plugin.component().sha256);
        let is_another = |pinned: &String| !pinned.eq_ignore_ascii_case(&sha256);
        if table.sha256.as_ref().is_some_and(is_another) {
            let text = format!(
                "`{}` is another file: its SHA-256 is {sha256}",
                file.display()
            );
            return Err(wrong(path, &[section.problem(Some("sha256"), text)]));
        }
        Ok(Self {
            plugin,
            load,
            spent,
            lines,
        })
    }

    async fn every_case(&self, cases: &Cases) -> anyhow::Result<Report> {
        let mut tried = Vec::new();
        for (at, case) in cases.cases.iter().enumerate() {
            let one = self.one_case(cases, at, case).await;
            tried.push(one.with_context(|| {
                let origin = cases.section.below(&format!("case.{at}")).origin();
                format!("{origin}: `{}` cannot be tried", clean(&case.name))
            })?);
        }
        let passed = tried.iter().filter(|tried| tried.passed).count();
        Ok(Report {
            passed,
            failed: tried.len() - passed,
            cases: tried,
        })
    }

    async fn one_case(&self, cases: &Cases, at: usize, case: &Case) -> anyhow::Result<Tried> {
        let stubs = Arc::new(Stubs::new(case.stubs.clone()));
        // What one case stores is not there for the next.
        let mut env = self.load.env(&format!("case/{at}"));
        env.http = stubs.clone();
        env.name = run::NAME.into();
        self.lines.take();
        let mut used = (0, 0);
        let came = match run::chain(&self.plugin, case, &cases.config(at), env)? {
            Err(problems) => Came {
                verdict: Verdict::Misconfigured(problems),
                request: None,
                response: None,
                identity: None,
                time: Duration::ZERO,
            },
            Ok(chain) => {
                for _ in 1..case.repeat.0 {
                    run::send(&chain, case).await?;
                }
                self.lines.take();
                let _earlier = self.spent.take_failure();
                let before = (self.spent.fuel(), self.spent.hooks());
                let came = run::send(&chain, case).await?;
                used = (self.spent.fuel() - before.0, self.spent.hooks() - before.1);
                came
            }
        };
        let log = self.lines.take();
        let mut judge = Judge::default();
        judge.case(case, &came, &log);
        judge.fuel(case.max_fuel, used.0);
        for request in stubs.missing() {
            judge.unexpected("request of its own without a stub", request);
        }
        // A failure refuses, but is no refusal: it is one only where the case expects that very reason.
        if let Some(failure) = self.spent.take_failure()
            && !is_expected(case, &came.verdict, &failure)
        {
            judge.unexpected("failure", failure);
        }
        Ok(Tried {
            name: case.name.clone(),
            origin: cases.section.below(&format!("case.{at}")).origin(),
            passed: judge.0.is_empty(),
            fuel: used.0,
            hooks: used.1,
            microseconds: u64::try_from(came.time.as_micros()).unwrap_or(u64::MAX),
            differences: judge.0,
            log,
        })
    }
}

/// Whether a failure is what the case names the reason of.
fn is_expected(case: &Case, verdict: &Verdict, failure: &str) -> bool {
    let Verdict::Refuse(refusal) = verdict else {
        return false;
    };
    case.expect.reason.is_some() && refusal.detail.as_deref() == Some(failure)
}

fn told(report: &Report) -> String {
    let mut text = String::new();
    let width = report
        .cases
        .iter()
        .map(|tried| tried.name.chars().count())
        .max()
        .unwrap_or(0);
    for tried in &report.cases {
        let mark = if tried.passed { '✓' } else { '✗' };
        let time = Duration::from_micros(tried.microseconds).as_secs_f64() * 1000.0;
        let fuel = grouped(tried.fuel);
        text.push_str(&format!(
            "{mark} {:width$}  {fuel:>10} fuel  {time:>8.2} ms\n",
            clean(&tried.name)
        ));
        if tried.passed {
            continue;
        }
        text.push_str(&format!("    {}\n", tried.origin));
        for difference in &tried.differences {
            for line in difference.lines() {
                // The lines of one text stay together.
                for part in line.lines() {
                    text.push_str(&format!("    {}\n", clean(part)));
                }
            }
        }
        for line in &tried.log {
            text.push_str(&format!("    its log: {}\n", clean(line)));
        }
    }
    text.push_str(&match (report.passed, report.failed) {
        (passed, 0) => format!("{passed} passed\n"),
        (passed, failed) => format!("{passed} passed, {failed} failed\n"),
    });
    text
}
