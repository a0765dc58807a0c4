//! A notifier that keeps what it is told.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use stillpoint::context::{Cx, ErrorClass, Failure};
use stillpoint::{Notification, Notifier};
use stillpoint_testkit::World;

/// Keeps what it is told, or comes to grief.
#[derive(Debug, Clone)]
pub struct Teller {
    pub how: &'static str,
    pub told: Arc<Mutex<Vec<Notification>>>,
    pub world: World,
}

#[async_trait]
impl Notifier for Teller {
    fn name(&self) -> &str {
        self.how
    }

    async fn notify(&self, _: &Cx, notification: &Notification) -> Result<(), Failure> {
        for host in self.world.hosts() {
            assert!(!self.world.is_frozen(&host), "told while {host} is frozen");
        }
        self.told.lock().unwrap().push(notification.clone());
        match self.how {
            "fails" => Err(Failure::new("test.refused", ErrorClass::Unavailable, "not today")),
            "panics" => panic!("at the wrong moment"),
            "hangs" => futures_util::future::pending().await,
            _ => Ok(()),
        }
    }
}

pub fn told_by(world: &World, how: &'static str) -> Teller {
    Teller { how, told: Arc::default(), world: world.clone() }
}
