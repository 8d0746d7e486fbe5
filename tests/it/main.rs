//! Against real servers, in one binary: they are started once and shared.
//!
//! servers          the launcher itself: start, kill, freeze, start again, and what happens when we die
//! milvus_contract  what every transport promises, against every server
//! postgres_source  what PostgreSQL sends, reads and refuses
//! types            PostgreSQL as the oracle of single values
//! snapshot         the copy beside a running stream
//! streaming        changes as they come, one difficulty a test
//! filters          row filters and column lists, of the publication and of the settings
//! keys             every type of key, keys of chosen columns, keys that change in form only
//! mapping          the options of Zilliz's own migration, and those beyond them
//! matrix           every type, target and policy, on every way and to every server
//! shapes           partitions, inheritance, generated columns, names, very many columns, partitions and tables
//! plan             what it shows, and what it finds different
//! schema           the table changes under the daemon
//! auto_id          rows without a key
//! guard            the slot guard
//! dead_letters     rows that Milvus will not take
//! teardown         the source is left as it was
//! reload           the configuration is read again
//! resync           a table copied again in place
//! restart          killed, stopped, started again, and started where it must not start
//! fault_matrix     each fault in each state of the daemon
//! fuzz             what comes from outside, changed at random
//! chaos            everything at once, by a seed
//! faults           lines that break, servers that die, answers that get lost
//! milvus_servers   what only a real Milvus shows
//! rest             snapshot, streaming, restart and faults again, over REST to the scripted Milvus
//! quota            a target that limits the rate, is slow, or denies writes
//! verify           what it finds, and what it must not take for a difference
//! check            what it finds before anything is touched, and that it touches nothing
//! vendor_clients   the vendor's own clients against the scripted Milvus, and against real ones for comparison
//! workload         the writers of the demo
//! bench_server     the discarding server of the benches
//! layering         who may import whom, read from the source
//! messages         every error is in the document
//! dashboards       names on dashboards, in alerts and in the document exist
#![allow(clippy::duplicate_mod)] // the same tests run over two targets: see `rest`

mod auto_id;
mod bench_server;
mod chaos;
mod check;
mod dashboards;
mod dead_letters;
mod failover;
mod fault_matrix;
mod faults;
mod filters;
mod fuzz;
mod guard;
mod keys;
mod layering;
mod mapping;
mod matrix;
mod messages;
mod milvus_contract;
mod milvus_servers;
mod plan;
mod postgres_source;
mod quota;
mod reload;
mod rest;
mod restart;
mod resync;
mod schema;
mod servers;
mod shapes;
mod snapshot;
mod streaming;
mod support;
mod surroundings;
mod teardown;
mod types;
mod vendor_clients;
mod verify;
mod visibility;
mod workload;

/// Where the tests write to: here Milvus Lite over gRPC; `rest::target` is the other one.
mod target {
    use tokio_postgres::Client;

    use crate::support::milvus;
    use crate::support::scene::Scene;

    pub async fn scene(major: u16) -> Scene {
        Scene::shared(major).await
    }

    pub async fn over(client: Client, source_url: String) -> Scene {
        Scene::new(client, source_url, milvus::lite().await.url()).await
    }
}
