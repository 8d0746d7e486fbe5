//! One unary gRPC call over axum: a message in, a message or a status out.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Buf;
use prost::Message;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic::server::{Grpc, UnaryService};
use tonic_prost::{ProstCodec, ProstEncoder};

/// Reads one message, and answers with what `handle` makes of it and of its length.
pub async fn unary<Asked, Answered, Answering>(
    request: Request,
    handle: impl FnMut(Asked, u64) -> Answering + Send + 'static,
) -> Response
where
    Asked: Message + Default + 'static,
    Answered: Message + Default + 'static,
    Answering: Future<Output = Result<Answered, Status>> + Send + 'static,
{
    let mut grpc = Grpc::new(Measured::<Answered, Asked>(PhantomData)).max_decoding_message_size(usize::MAX);
    grpc.unary(Handler(handle), request).await.map(Body::new)
}

struct Handler<F>(F);

impl<F, Asked, Answered, Answering> UnaryService<(Asked, u64)> for Handler<F>
where
    F: FnMut(Asked, u64) -> Answering,
    Answering: Future<Output = Result<Answered, Status>> + Send + 'static,
{
    type Response = Answered;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<Answered>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<(Asked, u64)>) -> Self::Future {
        let (message, bytes) = request.into_inner();
        let answer = (self.0)(message, bytes);
        Box::pin(async { answer.await.map(tonic::Response::new) })
    }
}

/// Protocol buffers whose decoder says how long the message was.
struct Measured<Answered, Asked>(PhantomData<(Answered, Asked)>);

impl<Answered: Message + 'static, Asked: Message + Default + 'static> Codec for Measured<Answered, Asked> {
    type Encode = Answered;
    type Decode = (Asked, u64);
    type Encoder = ProstEncoder<Answered>;
    type Decoder = MeasuredDecoder<Asked>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<Answered, Asked>::raw_encoder(Default::default())
    }

    fn decoder(&mut self) -> Self::Decoder {
        MeasuredDecoder(PhantomData)
    }
}

struct MeasuredDecoder<Asked>(PhantomData<Asked>);

impl<Asked: Message + Default> Decoder for MeasuredDecoder<Asked> {
    type Item = (Asked, u64);
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        let bytes = buffer.remaining() as u64;
        let message = Asked::decode(buffer).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Some((message, bytes)))
    }
}
