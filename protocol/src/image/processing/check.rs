//! Whether steps fit the tensors that they stand between; said before a model is signed, not when the first request comes.

use super::{After, Before, Column, ImageStep, Layout, Processing, TableStep, TopK};
use crate::image::contract::{IoContract, TensorSpec};
use crate::limits::{IMAGE_SIDE_MAX, STEPS_MAX, TABLE_COLUMNS_MAX};
use crate::tensor::Datatype;

/// Why steps do not fit, in words.
type Checked = Result<(), String>;

impl Processing {
    /// Checks the steps against the contract that has them.
    pub(in crate::image) fn check(&self, contract: &IoContract) -> Checked {
        if self.before.len() + self.after.len() > STEPS_MAX {
            return Err(format!("more than {STEPS_MAX} steps"));
        }
        self.graph.inputs.iter().try_for_each(|spec| self.check_input(spec, contract))?;
        if let Some(step) =
            self.before.iter().find(|step| spec_of(&self.graph.inputs, step.makes()).is_none())
        {
            return Err(format!("a step makes `{}`, which the graph does not take", step.makes()));
        }
        for spec in &contract.inputs {
            let is_taken = self.before.iter().any(|step| step.takes().contains(&&*spec.name))
                || spec_of(&self.graph.inputs, &spec.name).is_some();
            if !is_taken {
                return Err(format!("input `{}` goes nowhere", spec.name));
            }
        }
        self.before.iter().try_for_each(|step| match step {
            Before::Image(step) => step.check(&contract.inputs, &self.graph.inputs),
            Before::Table(step) => step.check(&contract.inputs, &self.graph.inputs),
        })?;
        self.check_after(contract)
    }

    /// A graph's input is made by one step, or is the contract's.
    fn check_input(&self, spec: &TensorSpec, contract: &IoContract) -> Checked {
        let name = &spec.name;
        match self.before.iter().filter(|step| step.makes() == name).count() {
            1 => Ok(()),
            0 => match spec_of(&contract.inputs, name) {
                Some(same) if same.datatype == spec.datatype && same.shape == spec.shape => Ok(()),
                Some(_) => Err(format!("`{name}` passes through with another type or shape")),
                None => Err(format!("nothing makes the graph's input `{name}`")),
            },
            _ => Err(format!("two steps make `{name}`")),
        }
    }

    fn check_after(&self, contract: &IoContract) -> Checked {
        let mut known: Vec<(&str, Option<Datatype>)> =
            self.graph.outputs.iter().map(|spec| (&*spec.name, Some(spec.datatype))).collect();
        for step in &self.after {
            let from = step.takes();
            let Some((_, datatype)) = known.iter().rfind(|(name, _)| *name == from) else {
                return Err(format!("a step takes `{from}`, which nothing before it makes"));
            };
            if *datatype == Some(Datatype::Bytes) {
                return Err(format!("a step takes `{from}`, which is text"));
            }
            step.check()?;
            for (made, datatype) in step.made() {
                if known.iter().any(|(name, _)| *name == made) {
                    return Err(format!("`{made}` is made twice"));
                }
                known.push((made, Some(datatype)));
            }
        }
        for spec in &contract.outputs {
            let found = known.iter().find(|(name, _)| *name == spec.name);
            let Some((name, datatype)) = found else {
                return Err(format!("nothing makes the output `{}`", spec.name));
            };
            if datatype.is_some_and(|datatype| datatype != spec.datatype) {
                return Err(format!(
                    "output `{name}` is made as another type than {}",
                    spec.datatype
                ));
            }
        }
        Ok(())
    }
}

fn spec_of<'a>(specs: &'a [TensorSpec], name: &str) -> Option<&'a TensorSpec> {
    specs.iter().find(|spec| spec.name == name)
}

impl ImageStep {
    fn check(&self, inputs: &[TensorSpec], graph: &[TensorSpec]) -> Checked {
        let (from, to) = (&self.from, &self.to);
        let Some(spec) = spec_of(inputs, from) else {
            return Err(format!("a step takes `{from}`, which is no input"));
        };
        if spec.datatype != Datatype::Bytes || spec.shape.len() != 1 {
            return Err(format!("input `{from}`: images are BYTES of one dimension"));
        }
        let sides = [Some(self.width), Some(self.height), self.shorter_side];
        if sides.into_iter().flatten().any(|side| side == 0 || side > IMAGE_SIDE_MAX) {
            return Err(format!("`{to}`: sides are of 1 to {IMAGE_SIDE_MAX} pixels"));
        }
        let is_covering = self.shorter_side.is_none_or(|side| side >= self.width.max(self.height));
        if !is_covering {
            return Err(format!("`{to}`: a shorter-side below width or height leaves a gap"));
        }
        let channels = self.colour.channels();
        let is_one_each =
            |values: &[f32]| matches!(values.len(), 0 | 1) || values.len() == channels;
        if !is_one_each(&self.mean) || !is_one_each(&self.std) {
            return Err(format!("`{to}`: mean and std are none, one, or one for each channel"));
        }
        let divisors = self.std.iter().chain([&self.divisor]);
        if divisors.chain(&self.mean).any(|value| !value.is_finite())
            || self.std.iter().chain([&self.divisor]).any(|&value| value == 0.0)
        {
            return Err(format!("`{to}`: a divisor is 0, or a value is not finite"));
        }
        let rank = if self.layout == Layout::Flat { 2 } else { 4 };
        match spec_of(graph, to) {
            Some(made) if made.shape.len() != rank => {
                Err(format!("`{to}`: images make {rank} dimensions, the graph takes others"))
            }
            Some(made) if matches!(made.datatype, Datatype::Fp32 | Datatype::Fp16) => Ok(()),
            Some(made) if made.datatype == Datatype::Uint8 => {
                let is_plain = self.mean.is_empty() && self.std.is_empty();
                let says = || format!("`{to}`: UINT8 takes pixels as they are");
                if is_plain { Ok(()) } else { Err(says()) }
            }
            _ => Err(format!("`{to}`: images become FP32, FP16 or UINT8")),
        }
    }
}

impl TableStep {
    fn check(&self, inputs: &[TensorSpec], graph: &[TensorSpec]) -> Checked {
        let to = &self.to;
        let width: usize = self.columns.iter().map(Column::width).sum();
        if width == 0 || width > TABLE_COLUMNS_MAX {
            return Err(format!("`{to}`: a table has 1 to {TABLE_COLUMNS_MAX} columns"));
        }
        let made = spec_of(graph, to).filter(|spec| {
            matches!(spec.datatype, Datatype::Fp32 | Datatype::Fp64) && spec.shape.len() == 2
        });
        let Some(made) = made else {
            return Err(format!("`{to}`: a table becomes FP32 or FP64 of two dimensions"));
        };
        let columns = made.shape.get(1).copied().unwrap_or(-1);
        if columns >= 0 && usize::try_from(columns) != Ok(width) {
            return Err(format!(
                "`{to}`: the steps make {width} columns, the graph takes {columns}"
            ));
        }
        self.columns.iter().try_for_each(|column| column.check(inputs))
    }
}

impl Column {
    fn check(&self, inputs: &[TensorSpec]) -> Checked {
        let from = self.from();
        let Some(spec) = spec_of(inputs, from) else {
            return Err(format!("a column takes `{from}`, which is no input"));
        };
        match self {
            Self::Number(column) => {
                if spec.datatype == Datatype::Bytes {
                    return Err(format!("column `{from}`: text is a category, not a number"));
                }
                let is_usable = column.mean.is_finite() && column.std.is_finite();
                if !is_usable || column.std == 0.0 {
                    return Err(format!(
                        "column `{from}`: mean and std are finite, and std is not 0"
                    ));
                }
            }
            Self::Category(column) => {
                let unique: std::collections::BTreeSet<_> = column.categories.iter().collect();
                if unique.len() != column.categories.len() || unique.is_empty() {
                    return Err(format!("column `{from}`: categories are at least one, each once"));
                }
                let floating = [Datatype::Fp16, Datatype::Bf16, Datatype::Fp32, Datatype::Fp64];
                if floating.contains(&spec.datatype) {
                    return Err(format!("column `{from}`: categories are text or whole numbers"));
                }
            }
        }
        Ok(())
    }
}

impl After {
    /// What it makes, and of which type.
    fn made(&self) -> Vec<(&str, Datatype)> {
        match self {
            Self::Softmax(step) | Self::Sigmoid(step) => vec![(&step.to, Datatype::Fp32)],
            Self::Argmax(step) => vec![(&step.to, Datatype::Int64)],
            Self::Threshold(step) => vec![(&step.to, Datatype::Int64)],
            Self::Label(step) => vec![(&step.to, Datatype::Bytes)],
            Self::TopK(step) => step.made(),
        }
    }

    fn check(&self) -> Checked {
        match self {
            Self::TopK(step) => step.check(),
            Self::Label(step) if step.labels.is_empty() => {
                Err(format!("`{}`: at least one label is needed", step.to))
            }
            Self::Threshold(step) if step.at.is_nan() => {
                Err(format!("`{}`: the threshold is no number", step.to))
            }
            Self::Softmax(_)
            | Self::Sigmoid(_)
            | Self::Argmax(_)
            | Self::Threshold(_)
            | Self::Label(_) => Ok(()),
        }
    }
}

impl TopK {
    fn made(&self) -> Vec<(&str, Datatype)> {
        let kinds = [
            (&self.values, Datatype::Fp32),
            (&self.places, Datatype::Int64),
            (&self.names, Datatype::Bytes),
        ];
        let made = kinds.into_iter();
        made.filter_map(|(name, datatype)| Some((name.as_deref()?, datatype))).collect()
    }

    fn check(&self) -> Checked {
        let from = &self.from;
        if self.k == 0 || self.made().is_empty() {
            return Err(format!("top-k of `{from}` makes nothing"));
        }
        if self.names.is_some() && self.labels.is_empty() {
            return Err(format!("top-k of `{from}`: names need labels"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::image::IoContract;

    fn contract(steps: &str) -> Result<IoContract, String> {
        let json = format!(
            r#"{{"schema":1,
            "inputs":[{{"name":"image","datatype":"BYTES","shape":[-1]}}],
            "outputs":[{{"name":"label","datatype":"BYTES","shape":[-1,2]}}],
            "processing":{{"graph":{{
                "inputs":[{{"name":"x","datatype":"FP32","shape":[-1,3,8,8]}}],
                "outputs":[{{"name":"scores","datatype":"FP32","shape":[-1,2]}}]}},{steps}}}}}"#
        );
        IoContract::parse(json.as_bytes()).map_err(|error| {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            format!("{error}{}", source.unwrap_or_default())
        })
    }

    const IMAGE: &str = r#""before":[{"image":{"from":"image","to":"x","width":8,"height":8}}]"#;
    const NAMES: &str = r#""after":[{"softmax":{"from":"scores","to":"p"}},
        {"top-k":{"from":"p","k":2,"names":"label","labels":["cat","dog"]}}]"#;

    #[test]
    fn steps_that_lead_from_input_to_output_are_taken_and_survive_their_encoding() {
        let read = contract(&format!("{IMAGE},{NAMES}")).unwrap();
        let again = IoContract::parse(&serde_json::to_vec(&read).unwrap()).unwrap();
        assert_eq!(again, read);
    }

    #[test]
    fn a_gap_between_input_and_output_is_named() {
        let told = |steps: &str| contract(steps).unwrap_err();
        assert!(told(NAMES).contains("nothing makes the graph's input `x`"));
        assert!(told(IMAGE).contains("nothing makes the output `label`"));
        let other = IMAGE.replace("\"from\":\"image\"", "\"from\":\"picture\"");
        assert!(told(&format!("{other},{NAMES}")).contains("input `image` goes nowhere"));
        let early = NAMES.replace("\"from\":\"scores\"", "\"from\":\"p2\"");
        assert!(told(&format!("{IMAGE},{early}")).contains("nothing before it makes"));
    }

    #[test]
    fn values_without_a_meaning_are_refused() {
        let told = |more: &str| {
            let step = IMAGE.replace("\"height\":8", &format!("\"height\":8,{more}"));
            contract(&format!("{step},{NAMES}")).unwrap_err()
        };
        assert!(told(r#""divisor":0"#).contains("a divisor is 0"));
        assert!(told(r#""mean":[1,2]"#).contains("one for each channel"));
        assert!(told(r#""shorter-side":0"#).contains("sides are of 1 to"));
        assert!(told(r#""shorter-side":7"#).contains("leaves a gap"));
        assert!(told(r#""blur":3"#).contains("unknown field"), "{}", told(r#""blur":3"#));
    }

    #[test]
    fn a_step_that_is_not_known_is_refused() {
        let told = contract(r#""before":[{"rotate":{"from":"image","to":"x"}}]"#).unwrap_err();
        assert!(told.contains("unknown variant"), "{told}");
    }
}
