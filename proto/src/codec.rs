//! How messages are encoded: each into a buffer of its own size.
//!
//! The default codec holds 8 KiB for each stream from its beginning to its end, which is most of what an idle watch costs; a
//! broker has tens of thousands of them.

use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, EncodeBuf, Encoder};
use tonic_prost::ProstDecoder;

/// What a stream holds before its first message.
const AT_FIRST: usize = 64;

/// Messages that wait are sent together up to so many bytes; as the default has it.
const TOGETHER: usize = 32 << 10;

/// A codec for messages of protobuf.
#[derive(Debug)]
pub struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> tonic::codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = FittingEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        FittingEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::default()
    }
}

/// Encodes each message into as much memory as it takes.
#[derive(Debug)]
pub struct FittingEncoder<T>(PhantomData<T>);

impl<T: Message> Encoder for FittingEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.reserve(item.encoded_len());
        item.encode(out).map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(AT_FIRST, TOGETHER)
    }
}
