//! `walvec teardown`: the source is left as it was, and nothing is dropped that is not walvec's or is in use.

use crate::support::daemon::walvec;
use crate::support::postgres::{major, majors};
use crate::support::scene::{PATIENCE, Scene};

fn teardown(scene: &Scene, arguments: &[&str]) -> (i32, String) {
    let (code, out, err) = walvec("teardown", &scene.directory.path().join("walvec.toml"), arguments);
    (code, out + &err)
}

/// How many slots and publications of the scene's name there are.
async fn left(scene: &Scene) -> (i64, i64) {
    let statement = "select (select count(*) from pg_replication_slots where slot_name = $1),
                            (select count(*) from pg_publication where pubname = $1)";
    let row = scene.client.query_one(statement, &[&scene.slot]).await.expect("can be read");
    (row.get(0), row.get(1))
}

#[tokio::test(flavor = "multi_thread")]
async fn slot_publication_and_state_go_and_collections_stay() {
    for major in majors() {
        let mut scene = Scene::shared(major).await;
        let table = scene.documents(8).await;
        scene.insert(&table, 1, 20, 8).await;
        let mut daemon = scene.started().await;
        let (code, said) = teardown(&scene, &["--yes"]);
        assert!(code == 5 && said.contains("in use by process") && said.contains("stop the daemon first"), "{said}");
        // The same with a state of its own, as on another machine.
        let state = scene.directory.path().join("state");
        let hidden = scene.directory.path().join("hidden");
        std::fs::rename(&state, &hidden).expect("renamed");
        let (code, said) = teardown(&scene, &["--yes"]);
        assert!(code == 3 && said.contains("is in use by process") && said.contains("walvec"), "{said}");
        std::fs::rename(&hidden, &state).expect("renamed back");
        daemon.terminate(PATIENCE).await;
        assert_eq!(left(&scene).await, (1, 1));

        let (code, said) = teardown(&scene, &[]);
        assert!(code == 1 && said.contains("would be dropped") && said.contains("do it with --yes"), "{said}");
        assert_eq!(left(&scene).await, (1, 1), "nothing was changed");
        let (code, said) = teardown(&scene, &["--yes", "--keep-publication"]);
        assert!(code == 0 && said.contains(&format!("collections that stay: {}", scene.collection(&table))), "{said}");
        assert_eq!(left(&scene).await, (0, 1));
        let (code, said) = teardown(&scene, &["--yes"]);
        assert!(code == 0 && said.contains("does not exist") && said.contains("there is none"), "{said}");
        assert_eq!(left(&scene).await, (0, 0));
        assert_eq!(scene.count(&table).await, 20);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_not_ours_is_left_alone() {
    let mut scene = Scene::shared(major()).await;
    scene.documents(8).await;
    scene.sql(&format!("select pg_create_physical_replication_slot('{}')", scene.slot)).await;
    scene.refused().await;
    let (code, said) = teardown(&scene, &["--yes"]);
    assert!(code == 3 && said.contains("is no logical slot of pgoutput"), "{said}");
    assert_eq!(left(&scene).await.0, 1);
    scene.sql(&format!("select pg_drop_replication_slot('{}')", scene.slot)).await;
}
