//! The numbers of servers, and what each of them means to us: the only place where they are translated.
//!
//! gRPC and REST share the `code` in a body; servers that set only the old `error_code` have an enumeration of their own, and Milvus
//! Lite puts numbers of that one into `code`. HTTP statuses count only where no body of Milvus came with them.
//! `docs/errors.md` is made from these tables.
//!
//! Sources: Milvus `pkg/merr` in snapshots of 2.3, 2.5, 2.6 and 3.0; Milvus Lite 3.2.2 `adapter/grpc/errors.py`; Milvus 2.3.5
//! and Lite as they answered; Zilliz Cloud's list of control-plane codes.

use std::ops::RangeInclusive;

use super::Condition::{self, *};

/// A number, or numbers in a row that mean the same.
#[derive(Debug)]
pub struct Code {
    pub numbers: RangeInclusive<i32>,
    /// What the server calls it.
    pub name: &'static str,
    pub condition: Condition,
}

const fn one(number: i32, name: &'static str, condition: Condition) -> Code {
    Code { numbers: number..=number, name, condition }
}

const fn row(first: i32, last: i32, name: &'static str, condition: Condition) -> Code {
    Code { numbers: first..=last, name, condition }
}

/// `code` in a body.
pub static CODES: &[Code] = &[
    // Service.
    one(1, "service not ready", Unavailable),
    one(2, "service unavailable", Unavailable),
    one(3, "memory limit exceeded", QuotaExceeded),
    one(4, "queue full", Unavailable),
    // "Never return this error out of Milvus", yet it happens.
    one(5, "service internal error", Unexpected),
    one(6, "cross cluster routing", Unavailable),
    one(7, "disk limit exceeded", QuotaExceeded),
    one(8, "rate limit exceeded", RateLimited),
    one(9, "quota exceeded", QuotaExceeded),
    one(10, "service unimplemented", Unsupported),
    one(11, "time tick long delay", QuotaExceeded),
    one(12, "resource insufficient", Unavailable),
    // Collection.
    one(100, "collection not found", NoCollection),
    one(101, "collection not loaded", NotLoaded),
    one(102, "number of collections exceeded", LimitReached),
    one(103, "collection not fully loaded", NotLoaded),
    one(104, "collection already loaded", Refused),
    one(105, "illegal collection schema", Refused),
    one(106, "collection on recovering", Unavailable),
    one(108, "collection in standby mode", NotWritable),
    one(109, "collection schema mismatch", SchemaStale),
    one(110, "collection schema version not ready", Unavailable),
    // Partition, capacity, resource group, replica.
    one(200, "partition not found", NoPartition),
    row(201, 202, "partition not loaded", NotLoaded),
    one(250, "general capacity exceeded", QuotaExceeded),
    one(305, "resource group unavailable", Unavailable),
    row(400, 401, "replica not found or not available", Unavailable),
    // Channel, segment.
    row(500, 507, "channel not available", Unavailable),
    row(600, 605, "segment not available", Unavailable),
    // Index.
    one(700, "index not found", NoIndex),
    one(701, "index type not supported", Refused),
    one(702, "index duplicate", AlreadyExists),
    // Database.
    one(800, "database not found", NoDatabase),
    one(801, "number of databases exceeded", LimitReached),
    one(802, "invalid database name", Refused),
    // Node, storage.
    row(901, 906, "node not available", Unavailable),
    row(1000, 1012, "storage failure", Unavailable),
    // Parameters.
    one(1100, "invalid parameter", InvalidData),
    one(1101, "missing parameter", InvalidData),
    one(1102, "parameter too large", RequestTooLarge),
    // Message queue.
    row(1300, 1302, "message queue failure", Unavailable),
    one(1303, "message queue denies writes", NotWritable),
    // Access.
    one(1400, "not authenticated", Unauthenticated),
    one(1401, "privilege not permitted", PermissionDenied),
    // Alias, field.
    one(1600, "alias not found", NoAlias),
    row(1601, 1603, "alias refused", Refused),
    row(1700, 1701, "field not found or invalid", SchemaStale),
    // The REST front. 1804 wraps the refusals of single rows.
    one(1800, "user has not authenticated", Unauthenticated),
    one(1801, "body is not JSON", Refused),
    one(1802, "missing required parameters", Refused),
    one(1803, "failed to marshal the schema", Refused),
    one(1804, "failed to deal with the insert data", InvalidData),
    one(1805, "failed to parse the result", Unexpected),
    one(1806, "invalid primary key type", InvalidData),
    one(1807, "rejected by the limiter", RateLimited),
    row(1900, 1903, "replication refuses", NotWritable),
    // Segment core, import, plan, function.
    row(2000, 2099, "segment core failure", Unexpected),
    one(2100, "import failed", InvalidData),
    one(2101, "import failed at the server", Unavailable),
    one(2200, "inconsistent requery", Unavailable),
    one(2201, "query plan failed", Refused),
    one(2317, "snapshot failure", Unsupported),
    one(2400, "function failed", Refused),
    one(2500, "encryption key revoked", KeyRevoked),
    row(2600, 2601, "snapshot failure", Unsupported),
    one(3000, "unsupported operation", Unsupported),
    one(10000, "canceled", TimedOut),
    one(10001, "timeout", TimedOut),
    // Zilliz Cloud, control plane.
    one(21119, "API key illegal", Unauthenticated),
    row(80001, 80002, "token illegal or unknown", Unauthenticated),
    row(80000, 80014, "control plane refuses (v1)", Refused),
    one(90117, "invalid domain", Refused),
    row(96012, 96016, "no permission", PermissionDenied),
    one(96027, "no permission", PermissionDenied),
    row(96000, 96040, "control plane refuses (v2)", Refused),
    one(65535, "unexpected error", Unexpected),
];

/// `code` in a body of Milvus Lite, where it differs.
pub static LITE_CODES: &[Code] = &[
    one(1, "unexpected error", Unexpected),
    one(6, "illegal argument", InvalidData),
    one(11, "index not found", NoIndex),
    one(26, "index refused", Refused),
    one(35, "index exists", AlreadyExists),
];

/// The old `error_code`, which counts where `code` is 0.
pub static LEGACY_CODES: &[Code] = &[
    one(1, "UnexpectedError", Unexpected),
    one(2, "ConnectFailed", Unavailable),
    one(3, "PermissionDenied", PermissionDenied),
    one(4, "CollectionNotExists", NoCollection),
    one(5, "IllegalArgument", InvalidData),
    row(7, 12, "IllegalDimension and the like", InvalidData),
    one(22, "IllegalNLIST", InvalidData),
    one(23, "IllegalMetricType", InvalidData),
    one(24, "OutOfMemory", QuotaExceeded),
    one(25, "IndexNotExist", NoIndex),
    one(28, "CannotDeleteFile: no collection", NoCollection),
    row(45, 47, "NotShardLeader and the like", Unavailable),
    one(48, "DiskQuotaExhausted", QuotaExceeded),
    one(49, "RateLimit", RateLimited),
    one(50, "NodeIDNotMatch", Unavailable),
    one(51, "UpsertAutoIDTrue", InvalidData),
    row(52, 55, "MemoryQuotaExhausted, TimeTickLongDelay, ForceDeny", QuotaExceeded),
    row(56, 57, "NotReady", Unavailable),
    one(62, "SchemaMismatch", SchemaStale),
    one(100, "DDRequestRace", Unavailable),
];

/// An HTTP status without a body of Milvus: a gateway, a proxy or a web server speaks.
pub static HTTP_STATUSES: &[Code] = &[
    row(200, 299, "success, but no answer of Milvus", InvalidAnswer),
    row(300, 399, "redirection", Configuration),
    one(400, "Bad Request", Refused),
    one(401, "Unauthorized", Unauthenticated),
    one(403, "Forbidden", PermissionDenied),
    row(404, 405, "Not Found, Method Not Allowed", Unsupported),
    one(407, "Proxy Authentication Required", Configuration),
    one(408, "Request Timeout", TimedOut),
    one(413, "Content Too Large", RequestTooLarge),
    one(425, "Too Early", Unavailable),
    one(429, "Too Many Requests", RateLimited),
    one(499, "Client Closed Request", TimedOut),
    one(500, "Internal Server Error", Unexpected),
    one(501, "Not Implemented", Unsupported),
    row(502, 503, "Bad Gateway, Service Unavailable", Unavailable),
    one(504, "Gateway Timeout", TimedOut),
];

/// The first row that has the number: single numbers stand before the families that they are part of.
fn find(table: &[Code], number: i32) -> Option<Condition> {
    table.iter().find(|code| code.numbers.contains(&number)).map(|code| code.condition)
}

impl Condition {
    /// The condition behind a body's `code`; 0 is success and no condition. A number that nobody told us of is `Unexpected`.
    ///
    /// `lite`: Milvus Lite puts numbers of the old enumeration into `code`.
    pub fn of_code(code: i32, lite: bool) -> Option<Condition> {
        if code == 0 {
            return None;
        }
        let own = if lite { find(LITE_CODES, code) } else { None };
        Some(own.or_else(|| find(CODES, code)).unwrap_or(Unexpected))
    }

    /// The condition behind the old `error_code`, which counts only when `code` is 0.
    pub fn of_legacy(error_code: i32) -> Option<Condition> {
        (error_code != 0).then(|| find(LEGACY_CODES, error_code).unwrap_or(Unexpected))
    }

    /// The condition behind an HTTP status that came without a body of Milvus.
    pub fn of_http(status: u16) -> Condition {
        find(HTTP_STATUSES, status.into()).unwrap_or(Unexpected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every number of the references, with what it must mean, written a second time and in another order than the tables.
    #[test]
    fn every_known_code_has_its_condition() {
        let table: &[(&[i32], Condition)] = &[
            (&[1, 2, 4, 6, 12, 106, 110, 305, 400, 401, 901, 902, 903, 904, 905, 906, 2101, 2200], Unavailable),
            (&[500, 501, 502, 503, 504, 505, 506, 507, 600, 601, 602, 603, 604, 605, 1300, 1301, 1302], Unavailable),
            (&[1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1008, 1009, 1010, 1011, 1012], Unavailable),
            (&[3, 7, 9, 11, 250], QuotaExceeded),
            (&[8, 1807], RateLimited),
            (&[1102], RequestTooLarge),
            (&[1100, 1101, 1804, 1806, 2100], InvalidData),
            (&[109, 1700, 1701], SchemaStale),
            (&[101, 103, 201, 202], NotLoaded),
            (&[100], NoCollection),
            (&[200], NoPartition),
            (&[700], NoIndex),
            (&[702], AlreadyExists),
            (&[800], NoDatabase),
            (&[1600], NoAlias),
            (&[102, 801], LimitReached),
            (&[108, 1303, 1900, 1901, 1902, 1903], NotWritable),
            (&[1400, 1800, 21119, 80001, 80002], Unauthenticated),
            (&[1401, 96012, 96013, 96014, 96015, 96016, 96027], PermissionDenied),
            (&[2500], KeyRevoked),
            (&[10, 2317, 2600, 2601, 3000], Unsupported),
            (&[104, 105, 701, 802, 1601, 1602, 1603, 1801, 1802, 1803, 2201, 2400], Refused),
            (&[80000, 80003, 80014, 90117, 96000, 96018, 96021, 96022, 96025, 96026, 96036, 96040], Refused),
            (&[10000, 10001], TimedOut),
            (&[5, 1805, 2000, 2099, 65535, 77777, -1], Unexpected),
        ];
        for &(codes, condition) in table {
            for &code in codes {
                assert_eq!(Condition::of_code(code, false), Some(condition), "code {code}");
            }
        }
        assert_eq!(Condition::of_code(0, false), None);
        let lite = [
            (1, Unexpected),
            (6, InvalidData),
            (11, NoIndex),
            (26, Refused),
            (35, AlreadyExists),
            (100, NoCollection),
            (101, NotLoaded),
            (200, NoPartition),
            (700, NoIndex),
        ];
        for (code, condition) in lite {
            assert_eq!(Condition::of_code(code, true), Some(condition), "lite code {code}");
        }
        let legacy = [
            (1, Unexpected),
            (2, Unavailable),
            (3, PermissionDenied),
            (4, NoCollection),
            (5, InvalidData),
            (7, InvalidData),
            (12, InvalidData),
            (22, InvalidData),
            (23, InvalidData),
            (24, QuotaExceeded),
            (25, NoIndex),
            (28, NoCollection),
            (45, Unavailable),
            (47, Unavailable),
            (48, QuotaExceeded),
            (49, RateLimited),
            (50, Unavailable),
            (51, InvalidData),
            (52, QuotaExceeded),
            (53, QuotaExceeded),
            (55, QuotaExceeded),
            (56, Unavailable),
            (57, Unavailable),
            (62, SchemaStale),
            (100, Unavailable),
            (1000, Unexpected),
        ];
        for (number, condition) in legacy {
            assert_eq!(Condition::of_legacy(number), Some(condition), "legacy {number}");
        }
        assert_eq!(Condition::of_legacy(0), None);
        let http = [
            (204, InvalidAnswer),
            (301, Configuration),
            (400, Refused),
            (401, Unauthenticated),
            (403, PermissionDenied),
            (404, Unsupported),
            (405, Unsupported),
            (407, Configuration),
            (408, TimedOut),
            (413, RequestTooLarge),
            (418, Unexpected),
            (425, Unavailable),
            (429, RateLimited),
            (499, TimedOut),
            (500, Unexpected),
            (501, Unsupported),
            (502, Unavailable),
            (503, Unavailable),
            (504, TimedOut),
        ];
        for (status, condition) in http {
            assert_eq!(Condition::of_http(status), condition, "HTTP {status}");
        }
    }

    #[test]
    fn no_row_hides_behind_another() {
        for table in [CODES, LITE_CODES, LEGACY_CODES, HTTP_STATUSES] {
            for (i, code) in table.iter().enumerate() {
                let hidden = |number| table[..i].iter().any(|before| before.numbers.contains(&number));
                assert!(!code.numbers.clone().all(hidden), "{code:?}");
            }
        }
    }
}
