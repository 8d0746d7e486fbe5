//! The same tests once more, over REST v2 to the scripted Milvus: a copy, changes, restarts and faults end equal there too,
//! and no body leaves that the published specification does not know.

#[path = "../faults.rs"]
mod faults;
#[path = "../restart.rs"]
mod restart;
#[path = "../snapshot.rs"]
mod snapshot;
#[path = "../streaming.rs"]
mod streaming;

use walvec::config::Transport;

use crate::support::postgres::major;
use crate::support::scene::{PATIENCE, Scene};
use crate::support::scripted::{Options, Scripted};

/// Where these tests write to.
mod target {
    use tokio_postgres::Client;
    use walvec::config::Transport;

    use crate::support::milvus;
    use crate::support::scene::Scene;

    pub async fn scene(major: u16) -> Scene {
        Scene::scripted(major, milvus::scripted(), Transport::Rest).await
    }

    pub async fn over(client: Client, source_url: String) -> Scene {
        Scene::over_scripted(client, source_url, milvus::scripted(), Transport::Rest).await
    }
}

/// The target's name exists nowhere: only the proxy of the environment knows the way.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_of_the_environment_is_used() {
    let milvus = Scripted::start(Options::default()).await;
    let mut scene = Scene::scripted(major(), &milvus, Transport::Rest).await;
    scene.target_url = "http://milvus.invalid:19530".to_owned();
    let table = scene.documents(8).await;
    scene.insert(&table, 1, 20, 8).await;
    let mut daemon = scene.start();
    daemon.kill();
    // A server that takes requests for other hosts is a proxy.
    daemon.restart_with(&[("HTTP_PROXY", &milvus.url())]);
    daemon.ready(PATIENCE).await;
    let collection = scene.collection(&table);
    assert_eq!(milvus.with_store(|store| store.collections[&collection].entities.len()), 20);
}
