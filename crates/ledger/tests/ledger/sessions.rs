//! Sessions: their names, and how they are found.

use crate::support::{Place, place};
use domain::{SessionId, event::Body};
use ledger::Error;

async fn found(place: &Place, text: &str) -> Vec<String> {
    let sessions = place.ledger.sessions(Some(text), 10).await.unwrap();
    sessions.into_iter().map(|session| session.name).collect()
}

#[tokio::test]
async fn sessions_are_found_by_any_part_of_their_names_the_newest_first() {
    let place = place().await;
    for name in ["Parser 100%", "parser_two", "parserXtwo", "back\\slash"] {
        place.ledger.session(name).await.unwrap();
    }
    assert_eq!(
        found(&place, "PARSER").await,
        ["parserXtwo", "parser_two", "Parser 100%"]
    );
    assert_eq!(found(&place, "0%").await, ["Parser 100%"]);
    assert_eq!(found(&place, "r_t").await, ["parser_two"]);
    assert_eq!(found(&place, "\\").await, ["back\\slash"]);
    assert!(found(&place, "nothing").await.is_empty());
    let newest = place.ledger.sessions(None, 2).await.unwrap();
    assert_eq!(newest.len(), 2);
    assert_eq!(newest[0].name, "back\\slash");
}

#[tokio::test]
async fn a_session_with_another_name_goes_on_for_whoever_knows_the_first_one() {
    let place = place().await;
    let (ledger, session) = (&place.ledger, place.session);
    ledger.rename_session(session, "mending").await.unwrap();
    assert_eq!(ledger.session("work").await.unwrap(), session);
    assert_eq!(ledger.session("mending").await.unwrap(), session);
    assert_eq!(ledger.sessions(None, 10).await.unwrap().len(), 1);
    let events = ledger.events(session, 0, 10).await.unwrap();
    let name = "mending".into();
    assert_eq!(
        events.last().unwrap().body,
        Body::SessionRenamed { name },
        "whoever follows it is told"
    );
    ledger.rename_session(session, "work").await.unwrap();
    place.holds().await;
}

#[tokio::test]
async fn a_name_that_is_none_or_is_taken_is_refused() {
    let place = place().await;
    let (ledger, session) = (&place.ledger, place.session);
    let other = ledger.session("other").await.unwrap();
    ledger.rename_session(other, "another").await.unwrap();
    for name in ["", "  ", "two\nlines", "other", "another"] {
        let refused = ledger.rename_session(session, name).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    }
    let nobody = ledger.rename_session(SessionId::from_bits(1), "x").await;
    assert!(matches!(nobody, Err(Error::NotFound { .. })), "{nobody:?}");
}
