//! `/dead-letters` and `/resync`: a list for everybody who may see the status, and wishes for who has the token.
//!
//! ```text
//! GET  /dead-letters?table=…&key=…                JSON, a list of `Listed`
//! POST /dead-letters/retry     {"table", "key"}   202 and `Taken`; both members may be left out
//! POST /dead-letters/discard   the same
//! POST /resync                 {"table"}
//! ```
//!
//! Holds: without the token nothing is changed. A browser cannot be made to send it: it is in a header that no form
//! sends, and no other origin is allowed anything.

use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State as Shared};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::commands::{Which, Wish};

use super::{NO_STORE, View};

/// How long a wish waits for a session to take it.
const TAKEN_WITHIN: Duration = Duration::from_secs(10);

pub(super) async fn list(Shared(view): Shared<View>, Query(which): Query<Which>) -> impl IntoResponse {
    ([NO_STORE], Json(view.letters.list(&which)))
}

pub(super) async fn retry(view: Shared<View>, headers: HeaderMap, which: Json<Which>) -> Response {
    carry_out(view, &headers, Wish::Retry, which).await
}

pub(super) async fn discard(view: Shared<View>, headers: HeaderMap, which: Json<Which>) -> Response {
    carry_out(view, &headers, Wish::Discard, which).await
}

pub(super) async fn resync(view: Shared<View>, headers: HeaderMap, which: Json<Which>) -> Response {
    carry_out(view, &headers, Wish::Resync, which).await
}

async fn carry_out(Shared(view): Shared<View>, headers: &HeaderMap, wish: Wish, Json(which): Json<Which>) -> Response {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = bearer.and_then(|value| value.strip_prefix("Bearer "));
    if !token.is_some_and(|token| view.token.is(token)) {
        let sentence = "this needs the token of the file admin.token in the daemon's state directory\n";
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], sentence).into_response();
    }
    match tokio::time::timeout(TAKEN_WITHIN, view.commands.ask(wish, which)).await {
        Ok(Some(taken)) => (StatusCode::ACCEPTED, Json(taken)).into_response(),
        Ok(None) | Err(_) => {
            let sentence = "the daemon has no connection to its source now, so it cannot do this; try again later\n";
            (StatusCode::SERVICE_UNAVAILABLE, sentence).into_response()
        }
    }
}
