//! Being registered: a wish that is kept, not a call that was made.

use std::{
    fmt,
    future::IntoFuture,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{oneshot, watch},
    time,
};

use crate::{
    Error, ErrorKind, Instance, InstanceKey, OnConflict, Owner, Result, Revision, Status,
    lease::{Command, Keeper, Keepers, Order, RegistrationStatus},
};

/// How long a lease lives without renewal unless told otherwise.
const TTL: Duration = Duration::from_secs(10);

/// Registers an instance; await it, or [`start`](Register::start) it.
///
/// Dropping the future that is awaited gives the registration up: what of it was on its way is taken back, or stays if it is
/// [permanent](Register::permanent).
#[derive(Debug)]
#[must_use = "nothing is registered until the builder is awaited or `start` is called"]
pub struct Register<'a> {
    keepers: &'a Keepers,
    instance: Instance,
    ttl: Option<Duration>,
    owner: Option<Owner>,
    on_conflict: OnConflict,
}

impl<'a> Register<'a> {
    pub(crate) fn new(keepers: &'a Keepers, instance: Instance) -> Self {
        Self { keepers, instance, ttl: Some(TTL), owner: None, on_conflict: OnConflict::Fail }
    }

    /// How long the entry outlives a process that died; 10 s unless told. The backend may round up.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Makes an entry that outlives this process, and its handle: it stays until it is removed.
    pub fn permanent(mut self) -> Self {
        self.ttl = None;
        self
    }

    /// Registers under a name that a restarted process will use again, so that it finds its old entry its own. Unless
    /// told, the owner is random.
    pub fn owner(mut self, owner: Owner) -> Self {
        self.owner = Some(owner);
        self
    }

    /// Replaces an entry of another owner.
    pub fn take_over(mut self) -> Self {
        self.on_conflict = OnConflict::TakeOver;
        self
    }

    /// Starts registering in the background and returns at once: the [status](Registration::status) tells how it
    /// goes. Unlike awaiting, this keeps trying even when the backend refuses.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](ErrorKind::Unsupported) on a backend that cannot register, or not with a lease.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn start(self) -> Result<Registration> {
        self.attach(None)
    }

    fn attach(self, ack: Option<oneshot::Sender<Result<Revision>>>) -> Result<Registration> {
        let backend = self.keepers.backend();
        if backend.registrar().is_none() {
            return Err(backend.info().lacks("registrar"));
        }
        if self.ttl.is_some() && backend.leases().is_none() {
            return Err(backend.info().lacks("leases"));
        }
        let mut instance = self.instance;
        if instance.incarnation() == 0 {
            instance = instance.to_builder().incarnation(fastrand::u64(1..)).build()?;
        }
        let instance = Arc::new(instance);
        let status = watch::Sender::new(RegistrationStatus::pending());
        let follow = status.subscribe();
        let order = Order {
            instance: instance.clone(),
            owner: self.owner.unwrap_or_else(Owner::random),
            on_conflict: self.on_conflict,
            status,
            ack,
        };
        let (keeper, id) = self.keepers.attach(self.ttl, order);
        Ok(Registration {
            key: instance.key().clone(),
            keeper: Some(keeper),
            id,
            leased: self.ttl.is_some(),
            wish: Mutex::new(instance),
            status: follow,
        })
    }
}

impl<'a> IntoFuture for Register<'a> {
    type Output = Result<Registration>;
    type IntoFuture = Pin<Box<dyn Future<Output = Result<Registration>> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let (ack, done) = oneshot::channel();
            let registration = self.attach(Some(ack))?;
            registration.answer(done).await.map_err(|error| error.during("register"))?;
            Ok(registration)
        })
    }
}

/// An instance that is kept registered for as long as this handle lives.
///
/// Whatever happens in between (a lost lease, a restarted server, an outage of hours), the keeper behind it puts the
/// latest data back, under the same owner and incarnation, so that watchers see no departure of what did not leave.
///
/// Dropping the handle deregisters in the background, as well as it can; a [permanent](Register::permanent) entry
/// stays. For certainty use [`deregister`](Registration::deregister).
pub struct Registration {
    key: InstanceKey,
    /// `None` once the handle has said its last word.
    keeper: Option<Arc<Keeper>>,
    id: u64,
    leased: bool,
    /// The latest data we asked for; the keeper has it, or will.
    wish: Mutex<Arc<Instance>>,
    status: watch::Receiver<RegistrationStatus>,
}

impl Registration {
    /// Which instance it is.
    pub fn key(&self) -> &InstanceKey {
        &self.key
    }

    /// The latest data that was asked for.
    pub fn instance(&self) -> Arc<Instance> {
        self.wish.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How it stands now.
    pub fn status(&self) -> RegistrationStatus {
        self.status.borrow().clone()
    }

    /// Waits for the status to change since the last call, and returns it.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a change that nobody waited for is returned by the next call.
    pub async fn changed(&mut self) -> RegistrationStatus {
        if self.status.changed().await.is_err() {
            // The keeper is gone: nothing will change any more.
            std::future::pending::<()>().await;
        }
        self.status.borrow_and_update().clone()
    }

    /// Waits until the status satisfies `condition`, and returns it.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn wait_for(
        &mut self,
        condition: impl FnMut(&RegistrationStatus) -> bool,
    ) -> RegistrationStatus {
        // The guard that this gives is let go of before the next await: it may not cross threads, our future may.
        if let Ok(status) = self.status.wait_for(condition).await {
            return status.clone();
        }
        std::future::pending().await
    }

    /// Replaces the data, and waits until the backend has it. Owner and incarnation stay.
    ///
    /// # Errors
    ///
    /// [`Invalid`](ErrorKind::Invalid) for another key or a record over the limit, and what the backend refuses; the
    /// earlier data then stands. Being out of reach is no refusal: the future waits.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: the new data is a wish from the first poll on, and is written even if nobody waits.
    pub async fn update(&self, instance: Instance) -> Result<Revision> {
        if *instance.key() != self.key {
            let message = format!("{} cannot become {}; register that one instead", self.key, instance.key());
            return Err(Error::invalid(message).during("update"));
        }
        let before = self.instance();
        let instance = Arc::new(instance.to_builder().incarnation(before.incarnation()).build()?);
        *self.wish.lock().unwrap_or_else(PoisonError::into_inner) = instance.clone();
        let outcome = self.ask(|ack| Command::Put { id: self.id, instance: instance.clone(), ack }).await;
        if outcome.is_err() {
            let mut wish = self.wish.lock().unwrap_or_else(PoisonError::into_inner);
            // Unless a later update has spoken since.
            if Arc::ptr_eq(&wish, &instance) {
                *wish = before;
            }
        }
        outcome.map_err(|error| error.during("update"))
    }

    /// Says [`Status::Draining`], gives callers `grace` to notice, and deregisters. A backend that does not take the
    /// word within `grace` is not waited for any longer: nobody can hear it.
    ///
    /// # Errors
    ///
    /// As for [`update`](Registration::update) and [`deregister`](Registration::deregister).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future deregisters at once, in the background.
    pub async fn drain(self, grace: Duration) -> Result<()> {
        let draining = self.instance().to_builder().status(Status::Draining).build()?;
        if let Ok(told) = time::timeout(grace, self.update(draining)).await {
            told?;
            time::sleep(grace).await;
        }
        self.deregister().await
    }

    /// Removes the entry, permanent or not, and waits until it is gone. No reconnect brings it back.
    ///
    /// # Errors
    ///
    /// What the backend refuses. Being out of reach is no refusal: the future waits, at most until the lease must
    /// have ended. (A backend that was down for that long may yet show the entry for one more ttl when it is back, if it
    /// gives leases their time again, as etcd does.)
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the removal to the background.
    pub async fn deregister(mut self) -> Result<()> {
        let outcome = self.ask(|ack| Command::Withdraw { id: self.id, ack: Some(ack) }).await;
        self.keeper = None;
        outcome.map(drop).map_err(|error| error.during("deregister"))
    }

    /// Lets go of the entry without removing it: a permanent one stays, a leased one ends with its lease, which other
    /// registrations with the same ttl may keep alive for as long as they live.
    pub fn detach(mut self) {
        if let Some(keeper) = self.keeper.take() {
            keeper.send(Command::Forget { id: self.id });
        }
    }

    async fn ask(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<Revision>>) -> Command,
    ) -> Result<Revision> {
        let (ack, done) = oneshot::channel();
        self.keeper.as_ref().ok_or_else(gone)?.send(command(ack));
        self.answer(done).await
    }

    async fn answer(&self, done: oneshot::Receiver<Result<Revision>>) -> Result<Revision> {
        let keeper = self.keeper.as_ref().ok_or_else(gone)?;
        keeper.answer(done).await.unwrap_or_else(|| Err(gone()))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            let id = self.id;
            keeper.send(if self.leased {
                Command::Withdraw { id, ack: None }
            } else {
                Command::Forget { id }
            });
        }
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Registration({}: {:?})", self.key, self.status.borrow().phase)
    }
}

fn gone() -> Error {
    Error::new(ErrorKind::Closed, "the keeper is gone with its runtime")
}
