//! A plugin as a kind of filter.

use std::sync::{Arc, Mutex};

use adit_config::{Problem, Section};
use adit_filters::{Env, Factory, FilterError, Hooks, Stage};
use futures_util::FutureExt as _;
use jsonschema::Validator;
use serde_json::Value;

use crate::component::{Component, ComponentError};
use crate::filter::Filter;
use crate::instance::Instance;
use crate::limits::Limits;
use crate::runtime::Runtime;
use crate::shared::{Grants, Shared};
use crate::spent::Spent;

/// How many mistakes in one filter's table are told.
const MISTAKES_MAX: usize = 20;

/// What a plugin is, as its operator says.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The kind of filter it becomes.
    pub name: String,
    /// Where its filters stand.
    pub stage: Stage,
    /// What it may do beyond judging.
    pub grants: Grants,
    /// How much of everything it may use.
    pub limits: Limits,
    /// How many hooks one instance may serve.
    pub reuse: u32,
}

/// A plugin, loaded.
pub struct Plugin {
    settings: Settings,
    component: Arc<Component>,
    schema: Value,
    validator: Validator,
    spent: Option<Arc<Spent>>,
}

impl Plugin {
    /// Loads a plugin from the bytes of its file. Its schema is asked for with `env`.
    ///
    /// # Errors
    /// [`ComponentError`].
    pub fn load(
        runtime: &Runtime,
        settings: Settings,
        bytes: &[u8],
        env: Env,
    ) -> Result<Self, ComponentError> {
        let component = Arc::new(Component::new(runtime, bytes, &settings.limits)?);
        let shared = Arc::new(settings.shared(env));
        let waits = || Err(ComponentError::Schema("it waits to say it".to_owned()));
        let schema = component
            .schema(&shared)
            .now_or_never()
            .unwrap_or_else(waits)?;
        let validator = jsonschema::validator_for(&schema)
            .map_err(|error| ComponentError::Schema(error.to_string()))?;
        Ok(Self {
            settings,
            component,
            schema,
            validator,
            spent: None,
        })
    }

    /// The same, with what its filters use counted.
    #[must_use]
    pub fn counted(self, spent: Arc<Spent>) -> Self {
        Self {
            spent: Some(spent),
            ..self
        }
    }

    /// The JSON Schema of a filter's table.
    #[must_use]
    pub fn schema(&self) -> &Value {
        &self.schema
    }

    /// The component.
    #[must_use]
    pub fn component(&self) -> &Component {
        &self.component
    }

    /// Everything in a table that does not fit the schema.
    fn misfits(&self, section: &Section, table: &Value) -> Vec<Problem> {
        let errors = self.validator.iter_errors(table).take(MISTAKES_MAX);
        errors
            .map(|error| {
                let at = error.instance_path().to_string();
                let key = at.trim_start_matches('/').replace('/', ".");
                let key = (!key.is_empty()).then_some(key.as_str());
                section.problem(key, error.to_string())
            })
            .collect()
    }
}

impl Settings {
    pub(crate) fn shared(&self, env: Env) -> Shared {
        let plugin = self.name.as_str().into();
        Shared::new(plugin, env, self.grants.clone(), self.limits)
    }
}

impl Factory for Plugin {
    fn name(&self) -> &str {
        &self.settings.name
    }

    fn stage(&self) -> Stage {
        self.settings.stage
    }

    fn build(&self, section: &Section, env: &mut Env) -> Result<Hooks, Vec<Problem>> {
        let table: Value = section.deserialize()?;
        let misfits = self.misfits(section, &table);
        if !misfits.is_empty() {
            return Err(misfits);
        }
        let config = table.to_string();
        let mut shared = self.settings.shared(env.clone());
        shared.spent.clone_from(&self.spent);
        let shared = Arc::new(shared);
        let asked = async {
            let mut instance = Instance::bare(&self.component, &shared).await?;
            instance.configure(&self.component, &config).await
        };
        let waits = || {
            Err(FilterError::Plugin {
                reason: "it waits to be configured".to_owned(),
            })
        };
        match asked.now_or_never().unwrap_or_else(waits) {
            Ok(Ok(())) => {}
            Ok(Err(rejected)) => {
                return Err(vec![
                    section.problem(rejected.key.as_deref(), rejected.message),
                ]);
            }
            Err(error) => {
                let text = format!("the plugin cannot be configured: {}", error.detail());
                return Err(vec![section.problem(None, text)]);
            }
        }
        let filter = Filter {
            component: Arc::clone(&self.component),
            shared,
            config,
            stage: self.settings.stage,
            reuse: self.settings.reuse,
            ready: Mutex::default(),
        };
        Ok(filter.hooks())
    }
}
