//! One Milvus Lite, one Milvus 2.3.5 and one scripted Milvus for all tests of this process; collections by `unique` names.
//!
//! Lite runs one request at a time, so a test that sends big ones slows the others, not more. Like the shared PostgreSQL they
//! end with this process; a test that kills its server starts its own.

use std::sync::{OnceLock, mpsc};

use tokio::sync::OnceCell;
use walvec::servers::{Milvus23, Milvus23Options, MilvusLite, MilvusLiteOptions};

use super::scripted::{Options, Scripted};

pub async fn lite() -> &'static MilvusLite {
    static LITE: OnceCell<MilvusLite> = OnceCell::const_new();
    LITE.get_or_init(async || MilvusLite::start(MilvusLiteOptions::default()).await.expect("Milvus Lite starts")).await
}

/// x86_64 only.
pub async fn milvus23() -> &'static Milvus23 {
    static MILVUS: OnceCell<Milvus23> = OnceCell::const_new();
    MILVUS.get_or_init(async || Milvus23::start(Milvus23Options::default()).await.expect("Milvus 2.3.5 starts")).await
}

/// On a runtime of its own: it must outlive the test that asked first.
pub fn scripted() -> &'static Scripted {
    static SCRIPTED: OnceLock<Scripted> = OnceLock::new();
    SCRIPTED.get_or_init(|| {
        let (say, heard) = mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
            runtime.expect("a runtime").block_on(async {
                say.send(Scripted::start(Options::default()).await).expect("somebody waits");
                std::future::pending::<()>().await;
            });
        });
        heard.recv().expect("it starts")
    })
}
