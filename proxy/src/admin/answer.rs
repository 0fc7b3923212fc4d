//! What each request comes to.

use std::sync::Arc;

use super::{Reply, Request};
use crate::assemble::{Operator, SwitchKey};
use crate::engine::{Inner, SwitchError, Wish};

/// Answers a request of the Unix user `asked_by`.
pub(super) async fn answer(engine: &Arc<Inner>, request: Request, asked_by: Option<u32>) -> Reply {
    match request {
        Request::Drain => {
            engine.ask_to_stop();
            Reply::Draining
        }
        Request::Explain { host } => Reply::Explained(engine.explain(&host)),
        Request::PolicyList { project } => match engine.filters(project.as_deref()) {
            Ok((filters, idle)) => Reply::Filters { filters, idle },
            Err(error) => refused(&error),
        },
        Request::PolicyShow { project, filter } => {
            match key(&project, &filter).and_then(|key| engine.filter(&key)) {
                Ok(filters) => Reply::Filters {
                    filters,
                    idle: Vec::new(),
                },
                Err(error) => refused(&error),
            }
        }
        Request::PolicySwitch {
            project,
            filter,
            to,
            reason,
        } => {
            switch(
                engine,
                &project,
                &filter,
                Wish::Switch(to, reason),
                asked_by,
            )
            .await
        }
        Request::PolicyReset { project, filter } => {
            switch(engine, &project, &filter, Wish::Forget, asked_by).await
        }
        Request::PolicyTest(request) => match engine.trial(request).await {
            Ok(report) => Reply::Tested(report),
            Err(error) => Reply::Refused {
                reasons: vec![error.to_string()],
            },
        },
        Request::Reload => reload(engine).await,
        Request::Status => Reply::Status(engine.status()),
    }
}

/// Reloads off the runtime's threads: it waits for disks, and for plugins to be compiled.
async fn reload(engine: &Arc<Inner>) -> Reply {
    let engine = Arc::clone(engine);
    match tokio::task::spawn_blocking(move || engine.reload()).await {
        Ok(Ok(())) => Reply::Reloaded,
        Ok(Err(error)) => Reply::Refused {
            reasons: error.lines(),
        },
        Err(error) => Reply::Wrong {
            message: format!("the reload broke off, look at the engine's log: {error}"),
        },
    }
}

/// Switches off the runtime's threads: it waits for the disk, and perhaps for a directory of users.
async fn switch(
    engine: &Arc<Inner>,
    project: &str,
    filter: &str,
    wish: Wish,
    asked_by: Option<u32>,
) -> Reply {
    let key = match key(project, filter) {
        Ok(key) => key,
        Err(error) => return refused(&error),
    };
    let Some(uid) = asked_by else {
        return Reply::Wrong {
            message: "the system does not say who asks".to_owned(),
        };
    };
    let engine = Arc::clone(engine);
    let switched =
        tokio::task::spawn_blocking(move || engine.switch(&key, wish, operator(uid))).await;
    match switched {
        Ok(Ok(switched)) => Reply::Switched(switched),
        Ok(Err(error)) => refused(&error),
        Err(error) => Reply::Wrong {
            message: format!("the switch broke off, look at the engine's log: {error}"),
        },
    }
}

fn operator(uid: u32) -> Operator {
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid));
    Operator {
        uid,
        name: user.ok().flatten().map(|user| user.name),
    }
}

fn key(project: &str, filter: &str) -> Result<SwitchKey, SwitchError> {
    SwitchKey::parse(project, filter).ok_or_else(|| SwitchError::NotAFilter {
        filter: filter.to_owned(),
    })
}

fn refused(error: &SwitchError) -> Reply {
    Reply::Refused {
        reasons: vec![error.to_string()],
    }
}
