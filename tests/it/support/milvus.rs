//! One Milvus Lite and one Milvus 2.3.5 for all tests of this process; collections by `unique` names.
//!
//! Lite runs one request at a time, so a test that sends big ones slows the others, not more. Like the shared PostgreSQL they
//! end with this process; a test that kills its server starts its own.

use tokio::sync::OnceCell;
use walvec::servers::{Milvus23, Milvus23Options, MilvusLite, MilvusLiteOptions};

pub async fn lite() -> &'static MilvusLite {
    static LITE: OnceCell<MilvusLite> = OnceCell::const_new();
    LITE.get_or_init(async || MilvusLite::start(MilvusLiteOptions::default()).await.expect("Milvus Lite starts")).await
}

/// x86_64 only.
pub async fn milvus23() -> &'static Milvus23 {
    static MILVUS: OnceCell<Milvus23> = OnceCell::const_new();
    MILVUS.get_or_init(async || Milvus23::start(Milvus23Options::default()).await.expect("Milvus 2.3.5 starts")).await
}
