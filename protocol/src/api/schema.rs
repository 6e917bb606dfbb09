//! OpenAPI schemas of names and of wire types that also stand in HTTP bodies.

use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::digest::Digest;
use crate::id::{
    AlertId, DeviceId, Epoch, Generation, ModelName, RolloutId, TeamId, TenantId, UnixMillis,
    Version,
};

macro_rules! schema {
    ($($name:ty: $type:ident, $example:expr;)*) => {$(
        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                ObjectBuilder::new().schema_type(Type::$type).examples([$example]).into()
            }
        }

        impl ToSchema for $name {}
    )*};
}

schema! {
    AlertId: String, "a-7";
    DeviceId: String, "cam-1";
    ModelName: String, "vision/digits";
    RolloutId: String, "r-12";
    TeamId: String, "vision";
    TenantId: String, "main";
    Version: String, "2";
    Digest: String, "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    Epoch: Integer, 1;
    Generation: Integer, 5;
    UnixMillis: Integer, 1_790_000_000_000_i64;
}
