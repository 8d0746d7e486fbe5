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
