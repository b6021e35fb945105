//! `skep retry` of a notification that was given up: it is told again.

use crate::{context::Context, exit::Exit, report::Error, view::text};
use domain::EventId;
use ledger::{Delivery, GivenUp};
use server::Node;

#[derive(serde::Serialize)]
struct Object<'a> {
    notification: EventId,
    state: &'static str,
    unreached: &'a [GivenUp],
}

pub(super) async fn run(node: &Node, id: EventId, context: &Context) -> Result<Exit, Error> {
    let delivery = node.tell_again(id).await?;
    let (state, unreached, exit): (_, &[GivenUp], _) = match &delivery {
        Delivery::Over => ("told", &[], Exit::Done),
        Delivery::Waits => ("waits", &[], Exit::Done),
        Delivery::GivenUp(left) => ("given_up", &left.unreached, Exit::Failed),
    };
    if context.output.is_json() {
        context.output.object(&Object {
            notification: id,
            state,
            unreached,
        })?;
    } else {
        context.output.say(&render(id, &delivery))?;
    }
    Ok(exit)
}

fn render(id: EventId, delivery: &Delivery) -> String {
    match delivery {
        Delivery::Over => format!("{id} was told.\n"),
        Delivery::Waits => format!(
            "{id} was not told everywhere yet. It is tried again by `skep run` and `skep resume`, \
             or by what runs already.\n"
        ),
        Delivery::GivenUp(left) => {
            let why = super::super::dead_letters::unreached(&left.unreached);
            format!("{id} was given up again: {}\n", text::line(&why))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{RequestId, Timestamp};
    use ledger::Undelivered;

    #[test]
    fn what_came_of_telling_again_is_said() {
        let id = EventId::from_bits(7);
        assert_eq!(render(id, &Delivery::Over), "e-000000000007 was told.\n");
        assert!(render(id, &Delivery::Waits).contains("tried again"));
        let left = Delivery::GivenUp(Undelivered {
            event: id,
            request: RequestId::from_bits(8),
            title: "Mend the parser".into(),
            time: Timestamp(0),
            unreached: vec![GivenUp {
                sink: Some("hook".into()),
                why: "it answered\n404".into(),
            }],
        });
        assert_eq!(
            render(id, &left),
            "e-000000000007 was given up again: hook: it answered 404\n"
        );
    }
}
