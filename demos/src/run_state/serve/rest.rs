//! What can be asked and done over HTTP. Bodies are JSON, or forms where the original has forms.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use axum::{
    Form, Json,
    body::Bytes,
    extract::{self, FromRequest, FromRequestParts, Request, State},
    http::{StatusCode, header::CONTENT_TYPE, request::Parts},
    response::{IntoResponse, Response},
};
use discovery::{
    Freshness,
    kv::Range,
    recipe::{Completed, Run, Seat},
};
use futures_util::{Stream, StreamExt, TryStreamExt, future, stream};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;

use super::{
    Service,
    problem::Problem,
    push::{Told, Values, Wish, follow},
};
use crate::{
    run_state::{
        args::CreateArgs,
        commands, machine,
        params::{self, Mappings, Port, Value, named},
        topology::{Machine, Topology},
        worker::Errand,
    },
    web::epoch_millis,
};

type Answer = Result<Response, Problem>;
type Asked = State<Arc<Service>>;

pub(super) async fn list(State(service): Asked, wish: Wish) -> Answer {
    match wish {
        Wish::Answer => Ok(Json(service.runs.list().await?).into_response()),
        wish => {
            // The registry has no number for all runs together.
            let values = service.runs.watch().map_ok(|runs| (None, json!(runs)));
            Ok(follow(wish, &service, "/runs".into(), values.boxed()))
        }
    }
}

/// A new run.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Order {
    /// Random if there is none.
    id: Option<String>,
    topology: BTreeMap<String, Vec<u32>>,
    #[serde(default)]
    states: Vec<String>,
    /// As in `10m`.
    limit: Option<String>,
    #[serde(default)]
    parameters: BTreeMap<Port, String>,
    #[serde(default)]
    mappings: Mappings,
}

pub(super) async fn create(State(service): Asked, Body(order): Body<Order>) -> Answer {
    let Order { id, topology, states, limit, parameters, mappings } = order;
    let topology = Topology::try_from(topology)?;
    let limit = limit.map(|limit| humantime::parse_duration(&limit)).transpose();
    let limit = limit.map_err(|error| Problem::bad_request(format_args!("limit: {error}; write 10m")))?;
    let id = id.unwrap_or_else(|| format!("run-{}", discovery::InstanceId::random()));
    let args = CreateArgs { run: id, topology, states, limit };
    let plan = params::plan(commands::plan(&args)?, &args.topology, &parameters, &mappings)?;
    let run = commands::create_run(&service.registry, &args.run, plan).await?;
    let place = [("location", format!("/runs/{}", run.id()))];
    Ok((StatusCode::CREATED, place, Json(json!({ "id": run.id(), "picture": run.picture().await? })))
        .into_response())
}

pub(super) async fn show(State(service): Asked, Path(run): Path<String>, wish: Wish) -> Answer {
    let run = service.runs.run(&run)?;
    // Also for those who want to follow: what is not there cannot be followed.
    let picture = run.picture().await?;
    match wish {
        Wish::Answer => Ok(Json(json!({ "id": run.id(), "picture": picture })).into_response()),
        wish => {
            let values = run.watch().map_ok(|picture| (Some(picture.version), json!(picture)));
            Ok(follow(wish, &service, format!("/runs/{}", run.id()), values.boxed()))
        }
    }
}

pub(super) async fn delete(State(service): Asked, Path(run): Path<String>) -> Answer {
    let run = service.runs.run(&run)?;
    if run.delete().await? {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    Err(Problem::not_found(format_args!("there is no run {}", run.id())))
}

/// In plain text, as in the original; whoever follows gets JSON.
pub(super) async fn state(State(service): Asked, Path(run): Path<String>, wish: Wish) -> Answer {
    let run = service.runs.run(&run)?;
    let status = run.status().await?;
    match wish {
        Wish::Answer => Ok(status.state.into_response()),
        wish => {
            let mut told = None;
            // The record is also written without a move.
            let moves = run.statuses().try_filter(move |status| {
                future::ready(told.replace(status.version) != Some(status.version))
            });
            let values = moves.map_ok(|status| (Some(status.version), json!(status.state)));
            Ok(follow(wish, &service, format!("/runs/{}/state", run.id()), values.boxed()))
        }
    }
}

pub(super) async fn missing(State(service): Asked, Path(run): Path<String>) -> Answer {
    Ok(Json(service.runs.run(&run)?.missing().await?).into_response())
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Abortion {
    cause: Option<String>,
    /// `aborted` or `error`; the first if there is none.
    state: Option<String>,
}

pub(super) async fn abort(
    State(service): Asked,
    Path(run): Path<String>,
    Body(abortion): Body<Abortion>,
) -> Answer {
    let cause = abortion.cause.unwrap_or_else(|| "aborted over HTTP".into());
    let state = abortion.state.unwrap_or_else(|| machine::ABORTED.into());
    Ok(Json(service.runs.run(&run)?.force(&state, &cause).await?).into_response())
}

/// Its topology.
pub(super) async fn nodes(State(service): Asked, Path(run): Path<String>) -> Answer {
    let picture = service.runs.run(&run)?.picture().await?;
    let machines = picture.tasks.keys().filter_map(|task| task.parse::<Machine>().ok());
    Ok(Json(machines.collect::<Topology>()).into_response())
}

type OfMachine = Path<(String, String, u32)>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Completion {
    current: String,
    next: String,
}

pub(super) async fn complete(
    State(service): Asked,
    Path((run, node, index)): OfMachine,
    Body(completion): Body<Completion>,
) -> Answer {
    let Completion { current, next } = completion;
    let errand = Errand::new(&run, &Machine::new(&node, index)?, &current, &next);
    let completed = match service.crew.complete(errand).await? {
        Completed::Moved => "moved",
        Completed::Counted => "counted",
        Completed::Already => "already",
    };
    Ok(Json(json!({ "completed": completed })).into_response())
}

pub(super) async fn add(State(service): Asked, Path((run, node, index)): OfMachine) -> Answer {
    let machine = Machine::new(&node, index)?;
    let is_new = service.runs.run(&run)?.add(&machine.to_string()).await?;
    Ok(if is_new { StatusCode::CREATED } else { StatusCode::NO_CONTENT }.into_response())
}

pub(super) async fn remove(State(service): Asked, Path((run, node, index)): OfMachine) -> Answer {
    let machine = Machine::new(&node, index)?;
    match service.runs.run(&run)?.remove(&machine.to_string()).await? {
        Some(completed) => Ok(Json(json!({ "moved": completed == Completed::Moved })).into_response()),
        None => Err(Problem::not_found(format_args!("run {run} has no machine {machine}"))),
    }
}

pub(super) async fn parameters(
    State(service): Asked,
    Path((run, node, index)): OfMachine,
    wish: Wish,
) -> Answer {
    let (run, machine) = existing(&service, &run, &node, index).await?;
    let path = format!("/runs/{}/nodes/{machine}", run.id());
    let params = service.params(run.clone());
    match wish {
        Wish::Answer => Ok(Json(params.all(&machine).await?).into_response()),
        wish => {
            let view = service.kv.view(params.of(&machine)?);
            let values = stream::try_unfold(view, |mut view| async {
                view.changed().await?;
                let entries = view.entries().values();
                // Several that are written in one step may come one by one; see `Picture::version`.
                let version = entries.clone().map(|entry| entry.modified.0).reduce(u64::wrapping_add);
                Ok(Some(((version, json!(named(entries))), view)))
            });
            Ok(follow(wish, &service, path, while_there(run, values)))
        }
    }
}

type OfParam = Path<(String, String, u32, String)>;

/// In plain text, as in the original; whoever follows gets JSON.
pub(super) async fn parameter(
    State(service): Asked,
    Path((run, node, index, param)): OfParam,
    wish: Wish,
) -> Answer {
    let (run, machine) = existing(&service, &run, &node, index).await?;
    let path = format!("/runs/{}/nodes/{machine}/{param}", run.id());
    let params = service.params(run.clone());
    match wish {
        Wish::Answer => match params.get(&machine, &param).await? {
            Some(value) => Ok(([("etag", format!("\"{}\"", value.revision.0))], value.text).into_response()),
            None => Err(Problem::not_found(format_args!("{machine} has no parameter {param}; put one"))),
        },
        wish => {
            let values = of_one(&service, params.one(&machine, &param)?);
            Ok(follow(wish, &service, path, while_there(run, values)))
        }
    }
}

/// Ends with the run.
fn while_there(run: Run, values: impl Stream<Item = Told> + Send + 'static) -> Values {
    let gone = async move {
        let mut statuses = run.statuses();
        loop {
            match statuses.try_next().await {
                Ok(Some(_)) => {}
                Ok(None) => break,
                // It may be there all the same.
                Err(_) => future::pending().await,
            }
        }
    };
    values.take_until(gone).boxed()
}

/// The values of one key. One that is not there yet is waited for.
fn of_one(service: &Service, range: Range) -> Values {
    let view = service.kv.view(range);
    let values = stream::try_unfold(view, |mut view| async {
        loop {
            view.changed().await?;
            if let Some(entry) = view.entries().values().next() {
                let value = (Some(entry.modified.0), json!(Value::of(entry).text));
                return Ok(Some((value, view)));
            }
        }
    });
    values.boxed()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewValue {
    value: String,
}

pub(super) async fn set(
    State(service): Asked,
    Path((run, node, index, param)): OfParam,
    Body(NewValue { value }): Body<NewValue>,
) -> Answer {
    let run = service.runs.run(&run)?;
    let revision = service.params(run).set(&Machine::new(&node, index)?, &param, &value).await?;
    Ok(Json(json!({ "seq": revision.0 })).into_response())
}

pub(super) async fn circle(State(service): Asked, wish: Wish) -> Answer {
    let show = |seats: Vec<Seat>| {
        let seats = seats.into_iter().map(|seat| {
            json!({ "id": seat.id, "label": seat.label, "alive": seat.is_alive, "left": seat.has_left })
        });
        json!(seats.collect::<Vec<_>>())
    };
    match wish {
        Wish::Answer => Ok(Json(show(service.circle.seats().await?)).into_response()),
        wish => {
            let values = service.circle.watch().map_ok(move |seats| (None, show(seats)));
            Ok(follow(wish, &service, "/circle".into(), values.boxed()))
        }
    }
}

pub(super) async fn log(State(service): Asked, wish: Wish) -> Answer {
    match wish {
        Wish::Answer => Ok(Json(service.log.latest()).into_response()),
        wish => {
            let words = service.log.clone().follow(wish.after());
            Ok(follow(wish, &service, "/log".into(), words))
        }
    }
}

/// What the page wants to know of the server.
pub(super) async fn about(State(service): Asked) -> Answer {
    let about = json!({ "registry": service.registry.to_string(), "workers": service.crew.mortals() });
    Ok(Json(about).into_response())
}

/// Whether the registry tells of changes; if not, since when and why.
pub(super) async fn registry(State(service): Asked, wish: Wish) -> Answer {
    let show = |freshness: &Freshness| {
        let since = epoch_millis(SystemTime::now() - freshness.since().elapsed());
        let why = freshness.cause().map(ToString::to_string);
        json!({ "live": freshness.is_live(), "since": since, "why": why })
    };
    if let Wish::Answer = wish {
        return Ok(Json(show(&service.view.freshness())).into_response());
    }
    let values = stream::try_unfold((service.view(), None), move |(mut view, told)| async move {
        if let Some(told) = told {
            view.wait_for(|_, freshness| freshness.is_live() != told).await?;
        }
        let freshness = view.freshness();
        let value = (None, show(&freshness));
        Ok(Some((value, (view, Some(freshness.is_live())))))
    });
    Ok(follow(wish, &service, "/registry".into(), values.boxed()))
}

pub(super) async fn kill(State(service): Asked, Path(label): Path<String>) -> Answer {
    if service.crew.kill(&label) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    Err(Problem::not_found(format_args!("there is no worker {label} here that may be killed")))
}

/// A machine that is part of its run.
async fn existing(service: &Service, run: &str, node: &str, index: u32) -> Result<(Run, Machine), Problem> {
    let run = service.runs.run(run)?;
    let machine = Machine::new(node, index)?;
    if run.picture().await?.tasks.contains_key(&machine.to_string()) {
        return Ok((run, machine));
    }
    Err(Problem::not_found(format_args!("run {} has no machine {machine}", run.id())))
}

/// What an address says in its places.
pub(super) struct Path<T>(T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = extract::Path::from_request_parts(parts, state).await;
        path.map(|extract::Path(path)| Self(path))
            .map_err(|refusal| Problem::bad_request(refusal.body_text()))
    }
}

/// A body: a form if it says so, and else JSON, whatever it says. Who sends JSON by `curl -d` says that it is a form.
pub(super) struct Body<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let is_form = kind.is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"));
        let (parts, body) = request.into_parts();
        let body = Bytes::from_request(Request::new(body), state).await;
        let body = body.map_err(|refusal| Problem::bad_request(refusal.body_text()))?;
        if is_form && !body.starts_with(b"{") {
            // Whoever parses forms takes what is no text for other text.
            percent_encoding::percent_decode(&body)
                .decode_utf8()
                .map_err(|error| Problem::bad_request(format_args!("the form: {error}")))?;
            let form = Form::from_request(Request::from_parts(parts, body.into()), state).await;
            return form
                .map(|Form(form)| Self(form))
                .map_err(|refusal| Problem::bad_request(refusal.body_text()));
        }
        // Nothing at all stands for nothing in particular.
        let body = if body.is_empty() { b"{}" } else { &body[..] };
        let json = serde_json::from_slice(body);
        json.map(Self).map_err(|error| Problem::bad_request(format_args!("the body, as JSON: {error}")))
    }
}
