//! Where a command finds what the daemon knows: in the daemon that runs, or in the state of one that does not.

use std::net::SocketAddr;
use std::time::Duration;

use crate::admin::Token;
use crate::checkpoint::{Store, StoreError};
use crate::commands::{Taken, Which};
use crate::config::Settings;
use crate::pipeline;

use super::{Exit, Failure, status};

/// Who is asked.
pub(super) enum Place {
    Daemon(SocketAddr),
    /// No daemon runs: its state is ours, until the store is dropped.
    State(Box<(Store, crate::checkpoint::Saved)>),
}

impl Place {
    pub(super) async fn find(settings: &Settings) -> Result<Place, Failure> {
        let address = settings.admin.listen.map(status::local);
        if let Some(address) = address
            && status::get(address, "/livez").await.is_ok_and(|(success, _)| success)
        {
            return Ok(Place::Daemon(address));
        }
        let path = &settings.state.path;
        if !path.join("sled").exists() {
            let sentence = format!("no daemon answers, and there is no state in {}", path.display());
            return Err(Failure::new(Exit::State, sentence));
        }
        match Store::open(path, &pipeline::identity(&settings.source)) {
            Ok(opened) => Ok(Place::State(Box::new(opened))),
            Err(held @ StoreError::Held { .. }) => {
                let way_out = match address {
                    Some(address) => format!("the daemon does not answer at {address}; is this its [admin] listen?"),
                    None => "set admin.listen, so that the running daemon can be asked, or stop it".to_owned(),
                };
                Err(Failure::new(Exit::State, held).with_way_out(Some(way_out)))
            }
            Err(error) => Err(Failure::new(Exit::State, error)),
        }
    }
}

/// Ask the daemon for what needs the token.
pub(super) async fn wish(
    address: SocketAddr,
    settings: &Settings,
    what: &str,
    which: &Which,
) -> Result<Taken, Failure> {
    let token = Token::read(&settings.state.path).map_err(|error| {
        let way_out =
            format!("run this on the daemon's machine, as a user who may read {}", settings.state.path.display());
        Failure::new(Exit::Configuration, error).with_way_out(Some(way_out))
    })?;
    let client = status::client().map_err(temporary)?;
    let request = client.post(format!("http://{address}/{what}")).bearer_auth(token.expose()).json(which);
    let answer = request.timeout(Duration::from_secs(15)).send().await.map_err(temporary)?;
    if !answer.status().is_success() {
        let text = answer.text().await.map_err(temporary)?;
        return Err(Failure::new(Exit::Temporary, text.trim_end().to_owned()));
    }
    answer.json().await.map_err(temporary)
}

pub(super) fn temporary(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Failure {
    Failure::new(Exit::Temporary, error)
}
