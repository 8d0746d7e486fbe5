//! gRPC transport.
