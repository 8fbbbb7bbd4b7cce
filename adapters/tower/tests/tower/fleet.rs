//! Gates in a fleet: a request that lacks credits waits while its thread serves others. The tests
//! fill the fleet file like an agent.

use core::convert::Infallible;
use core::future::{Ready, ready};
use core::pin::Pin;
use core::sync::atomic::Ordering;
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use keytally::{FleetFile, Gate, GateConfig, KeyId, Name, NewKey, Plan, now, pepper};
use keytally_fleet_plan::holding::{add_credits, set_holding};
use keytally_fleet_plan::layout::{PageState, PageWord, Phase};
use keytally_fleet_plan::on_loss::OnLoss;
use keytally_fleet_plan::words::{Word, Words as _};
use keytally_tower::GateLayer;
use tempfile::TempDir;
use tower::{Layer as _, Service, service_fn};

use crate::support::{call, field, hello, with_key};

/// A wait that no test waits for.
const LONG: Duration = Duration::from_secs(3600);

/// A gate of a machine whose agent leads.
struct Machine {
    gate: Arc<Gate>,
    key: String,
    key_id: KeyId,
    fleet: PathBuf,
    _folder: TempDir,
}

impl Machine {
    fn new(policy: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let plan = Plan::new("default", policy.parse().unwrap()).unwrap();
        let config = GateConfig::default().with_keys(100).with_plans(vec![plan]);
        let peppers = pepper::parse(&pepper::generate().unwrap()).unwrap();
        let gate = Gate::create(folder.path().join("gate"), peppers, &config).unwrap();
        let (key, key_id) = gate.issue(&NewKey::new(42, Name::new("live").unwrap())).unwrap();
        let fleet = folder.path().join("fleet");
        let file = FleetFile::create(&fleet, &gate).unwrap();
        let heartbeat = now().unix_ms() + 3_600_000;
        file.page(PageWord::Heartbeat).store(heartbeat, Ordering::SeqCst);
        let state = PageState { phase: Phase::Leading, on_loss: Some(OnLoss::Closed), machines: 1 };
        file.page(PageWord::State).store(state.bits(), Ordering::SeqCst);
        gate.set_fleet(true).unwrap();
        gate.join(&fleet).unwrap();
        drop(file);
        let key = key.expose().to_owned();
        Self { gate: Arc::new(gate), key, key_id, fleet, _folder: folder }
    }

    /// Gives credits to each tally of the key. The machine holds more, which a refund needs.
    fn grant(&self, units: u32) {
        (0..2).for_each(|tally| self.grant_to(tally, units));
    }

    /// Gives credits to a tally of the key, if there is one of this number.
    fn grant_to(&self, tally: usize, units: u32) {
        let file = FleetFile::open(&self.fleet, &self.gate).unwrap();
        if let Some(number) = self.gate.table().tally_number(self.key_id, tally) {
            let number = u32::try_from(number).unwrap();
            let (words, subject) = (file.words(number).unwrap(), file.subject(number).unwrap());
            file.owner(number).unwrap().store(subject.owner, Ordering::Release);
            let now_ms = now().unix_ms();
            set_holding(&subject.layout, &words, now_ms, now_ms, &[units + 100; 4]);
            add_credits(&subject.layout, &words, now_ms, now_ms, &[units; 4]);
        }
    }

    fn layer(&self) -> GateLayer {
        GateLayer::new(Arc::clone(&self.gate))
    }

    /// Returns the credits of a tally of the key that are left.
    fn credits(&self, tally: usize) -> u32 {
        let file = FleetFile::open(&self.fleet, &self.gate).unwrap();
        let number = self.gate.table().tally_number(self.key_id, tally).unwrap();
        let number = u32::try_from(number).unwrap();
        let (words, subject) = (file.words(number).unwrap(), file.subject(number).unwrap());
        subject.layout.current(words.load(Word::Credits), now().unix_ms())[0]
    }
}

/// Polls a future once.
fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test]
async fn request_waits_for_credits_while_its_thread_serves_others() {
    let machine = Machine::new("1000/week");
    machine.gate.set_credit_wait(LONG);
    let costs = Arc::new(Mutex::new(0));
    let calls = Arc::clone(&costs);
    let layer = machine.layer().cost_with(move |_| {
        *calls.lock().unwrap() += 1;
        2
    });
    let service = layer.layer(service_fn(hello));
    // Both requests run on the thread of the test, as this task does.
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let (service, request) = (service.clone(), with_key(&machine.key));
            tokio::spawn(async move { call(&service, request).await })
        })
        .collect();
    tokio::task::yield_now().await;
    let other = call(&service, with_key("wrong")).await;
    assert_eq!(other.status(), 401);
    // The invalid key was decided after the others had begun to wait.
    assert_eq!(*costs.lock().unwrap(), 3);
    assert!(waiting.iter().all(|request| !request.is_finished()));
    machine.grant(100);
    for request in waiting {
        let admitted = request.await.unwrap();
        assert_eq!((admitted.status().as_u16(), admitted.body().as_str()), (200, "hello"));
    }
    assert_eq!((machine.credits(0), *costs.lock().unwrap()), (96, 3));
}

#[tokio::test]
async fn request_without_credits_gets_what_the_operator_chose() {
    let machine = Machine::new("1000/week; team: 1000/week");
    let service = machine.layer().layer(service_fn(hello));
    for wait in [Duration::ZERO, Duration::from_millis(3)] {
        machine.gate.set_credit_wait(wait);
        let refused = call(&service, with_key(&machine.key)).await;
        assert_eq!((refused.status().as_u16(), field(&refused, "Retry-After")), (503, "1"));
    }
}

#[test]
fn request_that_is_canceled_while_it_waits_charges_nothing() {
    let machine = Machine::new("1000/week");
    machine.gate.set_credit_wait(LONG);
    let mut service = machine.layer().layer(service_fn(hello));
    let mut waiting = Box::pin(service.call(with_key(&machine.key)));
    assert!(poll(waiting.as_mut()).is_pending());
    machine.grant(100);
    drop(waiting);
    assert_eq!(machine.credits(0), 100);
}

#[tokio::test]
async fn layers_of_one_gate_charge_the_higher_cost_once_after_a_wait() {
    let machine = Machine::new("1000/week; group write: 1000/week");
    machine.gate.set_credit_wait(LONG);
    machine.grant(1);
    let inner = machine.layer().cost(5).group("write").unwrap();
    let mut service = machine.layer().layer(inner.layer(service_fn(hello)));
    let mut waiting = Box::pin(service.call(with_key(&machine.key)));
    assert!(poll(waiting.as_mut()).is_pending());
    // The outer layer's charge stands while the inner one waits.
    assert_eq!(machine.credits(0), 0);
    machine.grant(100);
    assert_eq!(waiting.await.unwrap().status(), 200);
    assert_eq!(machine.credits(0), 101 - 5);
}

#[tokio::test]
async fn layer_charges_its_group_after_a_wait() {
    let machine = Machine::new("1000/week; group write: 1000/week");
    machine.gate.set_credit_wait(LONG);
    machine.grant_to(0, 10);
    let inner = machine.layer().group("write").unwrap();
    let mut service = machine.layer().layer(inner.layer(service_fn(hello)));
    let mut waiting = Box::pin(service.call(with_key(&machine.key)));
    assert!(poll(waiting.as_mut()).is_pending());
    machine.grant_to(1, 10);
    assert_eq!(waiting.await.unwrap().status(), 200);
    assert_eq!([0, 1].map(|tally| machine.credits(tally)), [9, 9]);
}

/// A service that fails a call for which it was not ready.
#[derive(Debug, Default)]
struct Polled {
    is_ready: bool,
}

impl Clone for Polled {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Service<Request<()>> for Polled {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.is_ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        assert!(core::mem::take(&mut self.is_ready), "the service was called before it was ready");
        ready(Ok(Response::new(Full::default())))
    }
}

#[tokio::test]
async fn request_that_waited_is_sent_to_the_service_that_was_ready() {
    let machine = Machine::new("1000/week");
    machine.gate.set_credit_wait(LONG);
    let mut service = machine.layer().layer(Polled::default());
    assert!(service.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready());
    let mut waiting = Box::pin(service.call(with_key(&machine.key)));
    assert!(poll(waiting.as_mut()).is_pending());
    machine.grant(100);
    assert_eq!(waiting.await.unwrap().status(), 200);
}
