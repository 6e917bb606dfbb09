use std::sync::Arc;

use ::parquet::basic::{Compression, ZstdLevel};
use ::parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FixedLenByteArray,
    FixedLenByteArrayType, FloatType, Int32Type, Int64Type,
};
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use ::parquet::schema::parser::parse_message_type;
use bytes::Bytes;

use super::*;

type Group<'a, 'b> = SerializedRowGroupWriter<'a, &'b mut Vec<u8>>;

fn write(schema: &str, compression: Compression, groups: &[&dyn Fn(&mut Group<'_, '_>)]) -> Bytes {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = WriterProperties::builder().set_compression(compression).build();
    let mut file = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut file, schema, Arc::new(properties)).unwrap();
    for fill in groups {
        let mut group = writer.next_row_group().unwrap();
        fill(&mut group);
        group.close().unwrap();
    }
    writer.close().unwrap();
    Bytes::from(file)
}

fn column<T: DataType>(group: &mut Group<'_, '_>, values: &[T::T], levels: Option<&[i16]>) {
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<T>().write_batch(values, levels, None).unwrap();
    column.close().unwrap();
}

fn all(table: &mut Table<Bytes>, rows_max: usize) -> Vec<Vec<Value>> {
    let mut columns = vec![Vec::new(); table.wanted.len()];
    while let Some(block) = table.next(rows_max).unwrap() {
        columns.iter_mut().zip(block).for_each(|(all, values)| all.extend(values));
    }
    columns
}

const NUMBERS: &str = "message rows { required double x; optional int64 n; }";

fn numbers(group: &mut Group<'_, '_>) {
    column::<DoubleType>(group, &[0.5, 1.5, 2.5], None);
    column::<Int64Type>(group, &[7, 9], Some(&[1, 0, 1]));
}

#[test]
fn rows_come_in_blocks_over_row_groups_with_nulls_in_their_places() {
    let zstd = Compression::ZSTD(ZstdLevel::default());
    for compression in [Compression::UNCOMPRESSED, Compression::SNAPPY, zstd] {
        let file = write(NUMBERS, compression, &[&numbers, &numbers]);
        let mut table = Table::open(file).unwrap();
        assert_eq!(table.rows(), 6);

        let columns = all(&mut table, 2);

        let x = [0.5, 1.5, 2.5].map(Value::Double);
        let n = [Value::Int(7), Value::Null, Value::Int(9)];
        assert_eq!(columns, [[x.clone(), x].concat(), [n.clone(), n].concat()]);
    }
}

#[test]
fn types_are_read_as_what_they_mean() {
    let schema = "message rows { required boolean yes; required int32 small (UINT_32); required int32 day (DATE);
        required int64 at (TIMESTAMP(MICROS,true)); required int64 local (TIMESTAMP(NANOS,false));
        required int32 clock (TIME(MILLIS,true)); required int64 price (DECIMAL(10,2)); required float ratio;
        required binary word (UTF8); required binary raw; required fixed_len_byte_array(3) wide (DECIMAL(6,3)); }";
    let file = write(
        schema,
        Compression::SNAPPY,
        &[&|group| {
            column::<BoolType>(group, &[true], None);
            column::<Int32Type>(group, &[-1], None);
            column::<Int32Type>(group, &[19_723], None);
            column::<Int64Type>(group, &[1_704_067_200_500_000], None);
            column::<Int64Type>(group, &[1_704_067_200_000_000_000], None);
            column::<Int32Type>(group, &[3_600_000], None);
            column::<Int64Type>(group, &[-5], None);
            column::<FloatType>(group, &[0.1], None);
            column::<ByteArrayType>(group, &[ByteArray::from("cat")], None);
            column::<ByteArrayType>(group, &[ByteArray::from(vec![0xff, 0xd8])], None);
            let wide = FixedLenByteArray::from(vec![0xff, 0xff, 0x85]);
            column::<FixedLenByteArrayType>(group, &[wide], None);
        }],
    );

    let row = all(&mut Table::open(file).unwrap(), 10).concat();

    let time = |text: &str| Value::Time(text.to_owned());
    let expected = [
        Value::Bool(true),
        Value::Unsigned(u64::from(u32::MAX)),
        time("2024-01-01"),
        time("2024-01-01T00:00:00.5Z"),
        time("2024-01-01T00:00:00"),
        time("01:00:00"),
        Value::Decimal("-0.05".to_owned()),
        Value::Single(0.1),
        Value::Text("cat".to_owned()),
        Value::Bytes(vec![0xff, 0xd8]),
        Value::Decimal("-0.123".to_owned()),
    ];
    assert_eq!(row, expected);
}

#[test]
fn lists_and_records_are_named_and_the_others_are_read() {
    let schema = "message rows { required group tags (LIST) { repeated group list { optional binary element (UTF8); } }
        required int64 n; }";
    let file = write(
        schema,
        Compression::SNAPPY,
        &[&|group| {
            let mut tags = group.next_column().unwrap().unwrap();
            let values = [ByteArray::from("a"), ByteArray::from("b")];
            let (there, again) = ([2, 2], [0, 1]);
            tags.typed::<ByteArrayType>().write_batch(&values, Some(&there), Some(&again)).unwrap();
            tags.close().unwrap();
            column::<Int64Type>(group, &[4], None);
        }],
    );
    let mut table = Table::open(file).unwrap();
    assert!(table.columns()[0].refused.is_some() && table.columns()[1].refused.is_none());

    assert_eq!(all(&mut table, 10), [[Value::Null], [Value::Int(4)]]);
}

#[test]
fn columns_that_nobody_wants_are_not_read() {
    let mut table = Table::open(write(NUMBERS, Compression::SNAPPY, &[&numbers])).unwrap();
    table.select(vec![1]);
    assert_eq!(all(&mut table, 10), [[Value::Int(7), Value::Null, Value::Int(9)]]);
}

#[test]
fn a_file_that_is_cut_off_is_refused() {
    let whole = write(NUMBERS, Compression::SNAPPY, &[&numbers, &numbers]);
    for length in 0..whole.len() {
        assert!(Table::open(whole.slice(..length)).is_err(), "{length} bytes");
    }
}

#[test]
fn no_rows_are_no_block() {
    let mut table = Table::open(write(NUMBERS, Compression::SNAPPY, &[])).unwrap();
    assert_eq!((table.rows(), table.next(10).unwrap()), (0, None));
}
