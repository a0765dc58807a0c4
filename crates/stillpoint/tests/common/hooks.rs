//! A runner of hooks that runs nothing: it notes what it is asked, and answers by the name of the program.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use stillpoint::context::{Cx, Effect, ErrorClass, Failure, Interrupted};
use stillpoint::model::hook::{Hook, HookEnd, HookPhase, HookStatus};
use stillpoint::{HookCall, HookRunner};
use stillpoint_testkit::World;

/// A call that came.
#[derive(Debug, Clone)]
pub struct Called {
    pub phase: HookPhase,
    pub program: String,
    pub env: BTreeMap<String, String>,
}

impl Called {
    pub fn ours(&self, name: &str) -> &str {
        &self.env[&format!("STILLPOINT_{name}")]
    }
}

/// The runner.
#[derive(Debug, Clone)]
pub struct Noting {
    world: World,
    calls: Arc<Mutex<Vec<Called>>>,
}

impl Noting {
    pub fn over(world: &World) -> Self {
        Self { world: world.clone(), calls: Arc::default() }
    }

    pub fn calls(&self) -> Vec<Called> {
        self.calls.lock().unwrap().clone()
    }

    /// The phases and programs that came, in order.
    pub fn came(&self) -> Vec<String> {
        self.calls().iter().map(|call| format!("{} {}", call.phase.word(), call.program)).collect()
    }
}

#[async_trait]
impl HookRunner for Noting {
    async fn check(&self, _: &Cx, hook: &Hook) -> Result<(), Failure> {
        match hook.program.as_str() {
            "missing" => Err(missing()),
            _ => Ok(()),
        }
    }

    async fn run(&self, cx: &Cx, call: &HookCall) -> Result<HookEnd, Failure> {
        for host in self.world.hosts() {
            assert!(!self.world.is_frozen(&host), "{} while {host} is frozen", call.hook.phase);
        }
        let (phase, program) = (call.hook.phase, call.hook.program.clone());
        let came = Called { phase, program, env: call.environment(cx) };
        self.calls.lock().unwrap().push(came);
        let exited = |code| HookEnd::new(HookStatus::Exited(code)).with_output("it says so\n", 0);
        match call.hook.program.as_str() {
            "bad" => Ok(exited(3)),
            "gone" => Err(missing()),
            "panics" => panic!("the runner came to grief"),
            "slow" => Ok(match cx.sleep(Duration::from_mins(10)).await {
                Ok(()) => exited(0),
                Err(Interrupted::DeadlinePassed) => HookEnd::new(HookStatus::TimedOut),
                Err(_) => HookEnd::new(HookStatus::Cancelled),
            }),
            _ => Ok(exited(0)),
        }
    }
}

fn missing() -> Failure {
    Failure::new("hook.program_missing", ErrorClass::Invalid, "there is no such program")
        .with_effect(Effect::None)
        .with_remedy("Make one.")
}
