//! Building the queues anew from what waits and what is held: once, for data from before there
//! were queues.

use crate::{
    attempt,
    counts::{self, Change},
    error::Trouble,
    plan,
    queue::{self, Kind, Offer, Queue},
    read,
    sql::{Key, Sql, all, get, id, json, one, run},
    submit,
};
use domain::{RequestId, entity::Ask, plan as domain_plan};

/// Gives every request, job and change its queue, and offers what may be claimed.
pub(crate) fn everything(sql: &Sql) -> Result<(), Trouble> {
    let requests = all(
        sql,
        "SELECT id, state FROM requests ORDER BY n",
        [],
        |row| Ok((id::<RequestId>(row, 0)?, get::<String>(row, 1)?)),
    )?;
    for (request, state) in requests {
        let ask = read::request(sql, request)?.ask;
        one_request(sql, request, &state, &ask)?;
        jobs(sql, request, &state, &ask)?;
    }
    changes(sql)
}

fn one_request(sql: &Sql, request: RequestId, state: &str, ask: &Ask) -> Result<(), Trouble> {
    let queue: Queue<'_> = submit::queue_of(ask)?;
    let queue = queue.row(sql)?;
    let patience = queue::patience(ask.placement.priority);
    run(
        sql,
        "UPDATE requests SET queue = ?2, patience = ?3, place = created + ?3 WHERE id = ?1",
        (request.key(), queue, patience),
    )?;
    let (row, place) = one(
        sql,
        "SELECT n, place FROM requests WHERE id = ?1",
        [request.key()],
        |row| Ok((get::<i64>(row, 0)?, get::<i64>(row, 1)?)),
    )?
    .unwrap_or_default();
    let offer = Offer {
        kind: Kind::Request,
        queue,
        place,
        subject: row,
        request: request.key(),
    };
    put(sql, offer, state == "queued", state == "planning")
}

fn jobs(sql: &Sql, request: RequestId, state: &str, ask: &Ask) -> Result<(), Trouble> {
    let jobs = all(
        sql,
        "SELECT j.n, j.state, j.created, s.body FROM jobs j JOIN specs s ON s.job = j.n \
         WHERE j.request = ?1 ORDER BY j.n",
        [request.key()],
        |row| {
            Ok((
                get::<i64>(row, 0)?,
                get::<String>(row, 1)?,
                get::<i64>(row, 2)?,
                json::<domain_plan::Job>(row, 3)?,
            ))
        },
    )?;
    let patience = queue::patience(ask.placement.priority);
    let mut room = one(
        sql,
        "SELECT parallel - held FROM requests WHERE id = ?1",
        [request.key()],
        |row| get::<i64>(row, 0),
    )?
    .unwrap_or(0);
    let open = matches!(state, "working" | "integrating");
    let mut offered = 0;
    for (row, state, created, spec) in jobs {
        let queue = plan::queue_of(sql, ask, &spec)?;
        let place = match state.as_str() {
            "blocked" => 0,
            _ => created.saturating_add(patience),
        };
        let is_offered = open && state == "ready" && room > 0;
        run(
            sql,
            "UPDATE jobs SET queue = ?2, place = ?3, offered = ?4 WHERE n = ?1",
            (row, queue, place, is_offered),
        )?;
        let offer = Offer {
            kind: Kind::Job,
            queue,
            place,
            subject: row,
            request: request.key(),
        };
        let held = matches!(state.as_str(), "leased" | "running" | "checking");
        put(sql, offer, is_offered, held)?;
        room -= i64::from(is_offered);
        offered += i64::from(is_offered);
    }
    run(
        sql,
        "UPDATE requests SET offered = ?2 WHERE id = ?1",
        (request.key(), offered),
    )?;
    Ok(())
}

fn changes(sql: &Sql) -> Result<(), Trouble> {
    let changes = all(
        sql,
        "SELECT n, request, repository, branch, state, created FROM changes ORDER BY n",
        [],
        |row| {
            Ok((
                get::<i64>(row, 0)?,
                get::<i64>(row, 1)?,
                get::<i64>(row, 2)?,
                get::<String>(row, 3)?,
                get::<String>(row, 4)?,
                get::<i64>(row, 5)?,
            ))
        },
    )?;
    for (subject, request, repository, branch, state, place) in changes {
        let queue = attempt::change_queue(repository, &branch).row(sql)?;
        run(
            sql,
            "UPDATE changes SET queue = ?2, place = ?3 WHERE n = ?1",
            (subject, queue, place),
        )?;
        let offer = Offer {
            kind: Kind::Change,
            queue,
            place,
            subject,
            request,
        };
        let held = matches!(state.as_str(), "merging" | "checking");
        put(sql, offer, state == "queued", held)?;
    }
    Ok(())
}

fn put(sql: &Sql, offer: Offer, offered: bool, held: bool) -> Result<(), Trouble> {
    if offered {
        queue::insert(sql, offer)?;
    }
    counts::store(
        sql,
        offer.queue,
        Change {
            offered: offered.into(),
            held: held.into(),
        },
    )
}
