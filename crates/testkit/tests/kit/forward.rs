//! What stands around a provider or a plug-in forwards everything: every method of every trait, with its arguments.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use serde::Serialize;
use serde::de::DeserializeOwned;
use stillpoint_context::{BoxFuture, Cx, HostId, HostPath, PathFlavor};
use stillpoint_exchange::{
    BackupKind, CopyId, DatabaseId, ExchangePlugin, Exposure, ForwardPlugin, PluginCall,
    PluginCaps, PluginError, PluginErrorKind, PluginResult, Prepared, RestoreSpec, Scope,
    SessionId, SessionSpec, Verdict, VerifySpec,
};
use stillpoint_storage::{
    Collateral, Consent, DocName, ExposureKey, ForwardProvider, HoldName, MemberRole, MemberSpec,
    NativeSnapshot, PrepareSpec, PreparedMember, ProviderCall, ProviderCaps, ProviderError,
    ProviderErrorKind, ProviderResult, RestoreKey, RestoredFile, SetToken, SnapshotId,
    SnapshotProvider, SnapshotRef, StageSpec, VolumeRef,
};
use stillpoint_testkit::wrap::{Faulty, Recorded, Recording, Timed, Times};
use stillpoint_testkit::{
    Faults, PLUGIN_CALLS, PLUGIN_RESTORE_CALLS, PROVIDER_CALLS, PROVIDER_LOCK_CALLS,
    PROVIDER_RESTORE_CALLS,
};
use stillpoint_workflow::testing::Sim;
use uuid::Uuid;

/// The names of the functions in a block of a source, from the line that has this in it.
fn functions(source: &str, block: &str) -> BTreeSet<String> {
    let (_, from) = source.split_once(block).unwrap_or_else(|| panic!("there is no {block}"));
    let (body, _) = from.split_once("\n}").unwrap();
    let heads = body.lines().filter_map(|line| {
        let line = line.strip_prefix("    ")?;
        let line = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ")?;
        Some(line.split(['(', '<']).next()?.to_owned())
    });
    heads.collect()
}

/// The names of the calls of a trait, with the name of its side before them.
fn calls_of(source: &str, named: &str, side: &str, not: &[&str]) -> BTreeSet<String> {
    let all = functions(source, &format!("pub trait {named}:"));
    let calls = all.into_iter().filter(|name| !not.contains(&name.as_str()));
    calls.map(|name| format!("{side}{name}")).collect()
}

const PROVIDER: &str = include_str!("../../../storage/src/provider.rs");
const PROVIDER_RESTORE: &str = include_str!("../../../storage/src/restore.rs");
const PROVIDER_LOCK: &str = include_str!("../../../storage/src/lock.rs");
const PROVIDER_FORWARD: &str = include_str!("../../../storage/src/forward.rs");
const PLUGIN: &str = include_str!("../../../exchange/src/plugin.rs");
const PLUGIN_RESTORE: &str = include_str!("../../../exchange/src/restore.rs");
const PLUGIN_FORWARD: &str = include_str!("../../../exchange/src/forward.rs");

#[test]
fn no_method_of_a_trait_is_left_out() {
    for (source, named, forward) in [
        (PROVIDER, "SnapshotProvider", PROVIDER_FORWARD),
        (PROVIDER_RESTORE, "SnapshotRestore", PROVIDER_FORWARD),
        (PROVIDER_LOCK, "SnapshotLock", PROVIDER_FORWARD),
        (PLUGIN, "ExchangePlugin", PLUGIN_FORWARD),
        (PLUGIN_RESTORE, "ExchangeRestore", PLUGIN_FORWARD),
    ] {
        let wanted = functions(source, &format!("pub trait {named}:"));
        assert!(wanted.len() >= 3, "{named}: {wanted:?}");
        assert_eq!(functions(forward, &format!("> {named} for F")), wanted, "{named}");
    }
}

#[test]
fn every_method_is_a_call() {
    let owned = |names: &[&str]| -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    };
    let mut provider = calls_of(PROVIDER, "SnapshotProvider", "", &["caps", "restore", "lock"]);
    provider.extend(calls_of(PROVIDER_RESTORE, "SnapshotRestore", "restore.", &[]));
    provider.extend(calls_of(PROVIDER_LOCK, "SnapshotLock", "lock.", &[]));
    assert_eq!(owned(&ProviderCall::NAMES), provider);
    let known = PROVIDER_CALLS.into_iter().chain(PROVIDER_RESTORE_CALLS);
    let known: Vec<_> = known.chain(PROVIDER_LOCK_CALLS).collect();
    assert_eq!(owned(&known), provider);
    let mut plugin = calls_of(PLUGIN, "ExchangePlugin", "", &["caps", "restore"]);
    plugin.extend(calls_of(PLUGIN_RESTORE, "ExchangeRestore", "restore.", &[]));
    assert_eq!(owned(&PluginCall::NAMES), plugin);
    let known: Vec<_> = PLUGIN_CALLS.into_iter().chain(PLUGIN_RESTORE_CALLS).collect();
    assert_eq!(owned(&known), plugin);
}

/// A side that can everything, and says to everything what it was asked.
#[derive(Debug)]
struct Echo;

fn text(call: &impl Serialize) -> String {
    serde_json::to_string(call).unwrap()
}

impl ForwardProvider for Echo {
    fn inner(&self) -> &dyn SnapshotProvider {
        self
    }
    fn around<'a, T>(
        &'a self,
        _: &'a Cx,
        call: ProviderCall<'a>,
        _: BoxFuture<'a, ProviderResult<T>>,
    ) -> BoxFuture<'a, ProviderResult<T>>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
    {
        Box::pin(ready(Err(ProviderError::new(ProviderErrorKind::Io, text(&call)))))
    }
    fn caps(&self) -> ProviderCaps {
        let mut caps = ProviderCaps::new("echo".parse().unwrap());
        caps.atomic_group = true;
        caps
    }
    fn has_restore(&self) -> bool {
        true
    }
    fn has_lock(&self) -> bool {
        true
    }
}

impl ForwardPlugin for Echo {
    fn inner(&self) -> &dyn ExchangePlugin {
        self
    }
    fn around<'a, T>(
        &'a self,
        _: &'a Cx,
        call: PluginCall<'a>,
        _: BoxFuture<'a, PluginResult<T>>,
    ) -> BoxFuture<'a, PluginResult<T>>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
    {
        Box::pin(ready(Err(PluginError::new(PluginErrorKind::Io, text(&call)))))
    }
    fn caps(&self) -> PluginCaps {
        let mut caps = PluginCaps::new("echo");
        caps.verify = true;
        caps
    }
    fn has_restore(&self) -> bool {
        true
    }
}

/// What only forwards.
#[derive(Debug)]
struct Plain<S: ?Sized>(Arc<S>);

impl ForwardProvider for Plain<dyn SnapshotProvider> {
    fn inner(&self) -> &dyn SnapshotProvider {
        &*self.0
    }
}

impl ForwardPlugin for Plain<dyn ExchangePlugin> {
    fn inner(&self) -> &dyn ExchangePlugin {
        &*self.0
    }
}

fn host() -> HostId {
    "ex1".parse().unwrap()
}

fn path(raw: &str) -> HostPath {
    HostPath::new(host(), PathFlavor::Posix, raw).unwrap()
}

/// Every call of a provider once, with arguments of its own.
fn provider_calls() -> Vec<ProviderCall<'static>> {
    use ProviderCall as Call;
    let volume: VolumeRef = "echo:v".parse().unwrap();
    let at = |number: &str| SnapshotRef::new(volume.clone(), SnapshotId::new(number).unwrap());
    let token = |text: &str| Cow::Owned(SetToken::new(text).unwrap());
    let prepared = |text: &str| {
        let member = PreparedMember::new(volume.clone(), MemberRole::Data);
        let set = Prepared::new(SetToken::new(text).unwrap(), "echo".parse().unwrap());
        Cow::Owned(set.with_members(vec![member]).with_opaque(vec![1, 2]))
    };
    let key = |text: &str| Cow::Owned(ExposureKey::new(text).unwrap());
    let doc = |text: &str| Cow::Owned(DocName::new(text).unwrap());
    let restore = |text: &str| RestoreKey::new(text).unwrap();
    let hold = |text: &str| Cow::Owned(HoldName::new(text).unwrap());
    let native = NativeSnapshot::new(
        SetToken::new("adopt").unwrap(),
        volume.clone(),
        "n",
        DateTime::UNIX_EPOCH,
    );
    let member = MemberSpec::new(volume.clone(), MemberRole::Log, vec![path("/v/a")]);
    let spec = PrepareSpec::new(SetToken::new("prepare").unwrap(), "name").with_member(member);
    let file = RestoredFile { snapshot: at("stage"), original: path("/v/a"), target: path("/t/a") };
    vec![
        Call::Resolve { files: vec![path("/v/a"), path("/v/b")].into() },
        Call::Volumes { volumes: vec![volume.clone()].into() },
        Call::Prepare { spec: Cow::Owned(spec.with_tag("a", "b")) },
        Call::Commit { prepared: prepared("commit") },
        Call::Adopt { prepared: prepared("adopt"), natives: vec![native].into() },
        Call::Settle { prepared: prepared("settle") },
        Call::Discard { token: token("discard") },
        Call::Find { token: token("find") },
        Call::List { volume: Cow::Owned(volume.clone()), page: Some("2".to_owned()) },
        Call::Delete { snapshot: Cow::Owned(at("delete")) },
        Call::Expose {
            snapshots: vec![at("expose")].into(),
            to: Cow::Owned(host()),
            key: key("expose"),
        },
        Call::Unexpose { key: key("unexpose") },
        Call::Exposures,
        Call::PutDoc { name: doc("put"), bytes: vec![1, 2, 3].into() },
        Call::GetDoc { name: doc("get") },
        Call::ListDocs,
        Call::DeleteDoc { name: doc("delete") },
        Call::Stage { spec: Cow::Owned(StageSpec::new(restore("stage"), vec![file])) },
        Call::Unstage { key: Cow::Owned(restore("unstage")) },
        Call::Publish { key: Cow::Owned(restore("publish")) },
        Call::Retract { key: Cow::Owned(restore("retract")) },
        Call::SettleRestore { key: Cow::Owned(restore("settle")) },
        Call::Collateral { snapshots: vec![at("collateral")].into() },
        Call::Revert {
            snapshots: vec![at("revert")].into(),
            consent: Cow::Owned(Consent(Collateral::default())),
        },
        Call::Hold { snapshot: Cow::Owned(at("hold")), name: hold("case-1") },
        Call::Release { snapshot: Cow::Owned(at("release")), name: hold("case-2") },
        Call::Lock { snapshot: Cow::Owned(at("lock")), until: DateTime::UNIX_EPOCH },
        Call::Keeps { snapshot: Cow::Owned(at("keeps")) },
    ]
}

/// Every call of a plug-in once, with arguments of its own.
fn plugin_calls() -> Vec<PluginCall<'static>> {
    use PluginCall as Call;
    let id = |number: u128| SessionId(Uuid::from_u128(number));
    let database = DatabaseId(Uuid::from_u128(1));
    let copy = CopyId::new(database, host());
    let prepared = Prepared::new(SetToken::new("snap").unwrap(), "echo".parse().unwrap());
    let exposure = Exposure::new(ExposureKey::new("verify").unwrap(), host(), Vec::new());
    let hour = Duration::from_hours(1);
    let spec = SessionSpec::new(id(2), BackupKind::Full, vec![copy.clone()], hour);
    let restore =
        |number| Cow::Owned(RestoreSpec::new(id(number), database, host(), Vec::new()).in_place());
    vec![
        Call::Inventory { scope: Cow::Owned(Scope::Hosts([host()].into())) },
        Call::Begin { spec: Cow::Owned(spec) },
        Call::Session { id: id(3) },
        Call::Renew { id: id(4), lease: hour },
        Call::Freeze { id: id(5), limit: Some(hour) },
        Call::Thaw { id: id(6) },
        Call::Snap { id: id(7), prepared: vec![prepared].into() },
        Call::Evidence { id: id(8) },
        Call::Verify {
            exposure: Cow::Owned(exposure),
            spec: Cow::Owned(VerifySpec::new(Vec::new())),
        },
        Call::Complete {
            id: id(9),
            verdicts: Cow::Owned(BTreeMap::from([(copy.clone(), Verdict::Good)])),
        },
        Call::Abort { id: id(10) },
        Call::Truncation { copy: Cow::Owned(copy.clone()), since: DateTime::UNIX_EPOCH },
        Call::ClosedLogs { copy: Cow::Owned(copy) },
        Call::Open { spec: restore(11) },
        Call::Finish { spec: restore(12) },
        Call::Cancel { spec: restore(13) },
    ]
}

#[test]
fn every_call_arrives_at_the_inner_provider_as_it_was_asked() {
    let sim = Sim::new(1);
    let cx = Cx::detached(&sim.seams());
    let calls = provider_calls();
    let names: Vec<_> = calls.iter().map(ProviderCall::name).collect();
    assert_eq!(names, ProviderCall::NAMES, "each once");
    let echo = || Arc::new(Echo) as Arc<dyn SnapshotProvider>;
    let wrapped: [Arc<dyn SnapshotProvider>; 4] = [
        Arc::new(Plain(echo())),
        Arc::new(Timed::provider(echo(), &Times::new())),
        Arc::new(Recorded::provider(echo(), &Recording::new())),
        Arc::new(Faulty::provider(echo(), &Faults::default())),
    ];
    for provider in wrapped {
        assert_eq!(provider.caps(), SnapshotProvider::caps(&Echo));
        for call in &calls {
            let error = sim.run(call.on(&*provider, &cx)).unwrap_err();
            assert_eq!(error.to_string(), text(call), "{provider:?}");
            assert!(text(call).contains(&format!("\"{}\"", call.name())), "{call:?}");
            let read: ProviderCall<'static> = serde_json::from_str(&text(call)).unwrap();
            assert_eq!(&read, call);
        }
    }
}

#[test]
fn every_call_arrives_at_the_inner_plug_in_as_it_was_asked() {
    let sim = Sim::new(1);
    let cx = Cx::detached(&sim.seams());
    let calls = plugin_calls();
    let names: Vec<_> = calls.iter().map(PluginCall::name).collect();
    assert_eq!(names, PluginCall::NAMES, "each once");
    let echo = || Arc::new(Echo) as Arc<dyn ExchangePlugin>;
    let wrapped: [Arc<dyn ExchangePlugin>; 4] = [
        Arc::new(Plain(echo())),
        Arc::new(Timed::plugin(echo(), &Times::new())),
        Arc::new(Recorded::plugin(echo(), &Recording::new())),
        Arc::new(Faulty::plugin(echo(), &Faults::default())),
    ];
    for plugin in wrapped {
        assert_eq!(plugin.caps(), ExchangePlugin::caps(&Echo));
        for call in &calls {
            let error = sim.run(call.on(&*plugin, &cx)).unwrap_err();
            assert_eq!(error.to_string(), text(call), "{plugin:?}");
            assert!(text(call).contains(&format!("\"{}\"", call.name())), "{call:?}");
            let read: PluginCall<'static> = serde_json::from_str(&text(call)).unwrap();
            assert_eq!(&read, call);
        }
    }
}

/// A provider without sides: a wrapper must not grow them.
#[derive(Debug)]
struct Bare;

impl ForwardProvider for Bare {
    fn inner(&self) -> &dyn SnapshotProvider {
        self
    }
    fn has_restore(&self) -> bool {
        false
    }
    fn has_lock(&self) -> bool {
        false
    }
}

impl ForwardPlugin for Bare {
    fn inner(&self) -> &dyn ExchangePlugin {
        self
    }
    fn has_restore(&self) -> bool {
        false
    }
}

#[test]
fn a_side_is_there_if_the_inner_one_has_it() {
    let provider = |inner: Arc<dyn SnapshotProvider>| {
        let wrapped = Plain(inner);
        (wrapped.restore().is_some(), SnapshotProvider::lock(&wrapped).is_some())
    };
    assert_eq!(provider(Arc::new(Echo)), (true, true));
    assert_eq!(provider(Arc::new(Bare)), (false, false));
    let plugin = |inner: Arc<dyn ExchangePlugin>| Plain(inner).restore().is_some();
    assert_eq!((plugin(Arc::new(Echo)), plugin(Arc::new(Bare))), (true, false));

    let sim = Sim::new(1);
    let cx = Cx::detached(&sim.seams());
    for call in provider_calls().iter().filter(|call| call.name().contains('.')) {
        let error = sim.run(call.on(&Bare, &cx)).unwrap_err();
        assert!(matches!(error.kind(), ProviderErrorKind::Unsupported(_)), "{call}: {error}");
    }
    for call in plugin_calls().iter().filter(|call| call.name().contains('.')) {
        let error = sim.run(call.on(&Bare, &cx)).unwrap_err();
        assert!(matches!(error.kind(), PluginErrorKind::Unsupported(_)), "{call}: {error}");
    }
}
