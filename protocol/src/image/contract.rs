//! The I/O contract: what a model takes and gives, by name, type and shape; a layer of the signed image.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::pictures::{ImageTensor, PictureInput};
use super::processing::Processing;
use crate::limits::{CONTRACT_BYTES_MAX, FEATURES_MAX};
use crate::tensor::{Datatype, Tensor};

/// What a model takes and gives.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct IoContract {
    /// Version of this format; 1.
    pub schema: u32,
    /// Input tensors.
    pub inputs: Vec<TensorSpec>,
    /// Output tensors.
    pub outputs: Vec<TensorSpec>,
    /// Steps between these tensors and the graph's; none where they are the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processing: Option<Processing>,
}

/// One tensor of the contract.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TensorSpec {
    /// Its name in the graph and in requests.
    pub name: String,
    /// Element type.
    pub datatype: Datatype,
    /// Length of each dimension; -1 is free, and a free first dimension is the batch.
    pub shape: Vec<i64>,
    /// What an output means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Names of the classes, in the order of the last dimension.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Names of the columns of an input, in order; they are what drift is watched on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<Feature>,
    /// That an input is decoded pictures, on which drift is watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageTensor>,
    /// Which numbers an input may hold.
    #[serde(default, skip_serializing_if = "Numbers::is_any")]
    pub numbers: Numbers,
}

/// Which numbers of floating point an input may hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Numbers {
    /// All; NaN is a missing value.
    #[default]
    Any,
    /// Neither NaN nor infinite ones.
    Finite,
}

impl Numbers {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
    fn is_any(&self) -> bool {
        *self == Self::Any
    }
}

/// What an output means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The index of the predicted class, one per row.
    Class,
    /// A probability per class; the largest is the confidence.
    Probabilities,
    /// A number, one per row.
    Value,
}

/// A column of an input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feature {
    /// Its name.
    pub name: String,
    /// The group under which it is judged and shown.
    pub group: String,
}

/// Why a contract was refused, or a tensor does not keep it.
#[derive(Debug, thiserror::Error)]
pub enum ContractError {
    /// Not JSON of this form.
    #[error("I/O contract cannot be read")]
    Decode(#[source] serde_json::Error),
    /// Larger than allowed.
    #[error("I/O contract has {0} bytes, at most {CONTRACT_BYTES_MAX} are allowed")]
    TooLarge(usize),
    /// Read, but it contradicts itself.
    #[error("I/O contract: {0}")]
    Content(String),
    /// A request lacks an input.
    #[error("input `{name}` is missing; expected {expected}")]
    MissingInput {
        /// The missing input.
        name: String,
        /// All inputs of the contract.
        expected: String,
    },
    /// A request names an input that the contract does not.
    #[error("unexpected input `{name}`; expected {expected}")]
    UnknownInput {
        /// The name given.
        name: String,
        /// All inputs of the contract.
        expected: String,
    },
    /// Another element type.
    #[error("input `{name}`: expected {expected}, {given} given")]
    Datatype {
        /// The input.
        name: String,
        /// The contract's type.
        expected: Datatype,
        /// The type given.
        given: Datatype,
    },
    /// Another shape.
    #[error("input `{name}`: expected shape {expected:?}, {given:?} given")]
    Shape {
        /// The input.
        name: String,
        /// The contract's shape.
        expected: Vec<i64>,
        /// The shape given.
        given: Vec<u64>,
    },
    /// A number that the contract forbids.
    #[error("input `{name}`: expected finite numbers, element {index} is {given}")]
    NotFinite {
        /// The input.
        name: String,
        /// Position in row-major order.
        index: usize,
        /// The number given.
        given: f64,
    },
}

impl IoContract {
    /// Reads and checks a contract.
    pub fn parse(bytes: &[u8]) -> Result<Self, ContractError> {
        if bytes.len() > CONTRACT_BYTES_MAX {
            return Err(ContractError::TooLarge(bytes.len()));
        }
        let contract: Self = serde_json::from_slice(bytes).map_err(ContractError::Decode)?;
        contract.check()?;
        Ok(contract)
    }

    fn check(&self) -> Result<(), ContractError> {
        let content = |text: String| Err(ContractError::Content(text));
        if self.schema != 1 {
            return content(format!("schema {} is not known; 1 is", self.schema));
        }
        if self.inputs.is_empty() || self.outputs.is_empty() {
            return content("at least one input and one output are needed".to_owned());
        }
        for specs in [&self.inputs, &self.outputs] {
            let names: BTreeSet<_> = specs.iter().map(|spec| &spec.name).collect();
            if names.len() != specs.len() {
                return content("a tensor is named twice".to_owned());
            }
        }
        self.inputs.iter().chain(&self.outputs).try_for_each(TensorSpec::check)?;
        if let Some(output) = self.outputs.iter().find(|output| output.image.is_some()) {
            return content(format!("output `{}`: pictures are inputs", output.name));
        }
        let features = || self.observed_inputs().flat_map(|spec| &spec.features);
        let names: BTreeSet<_> = features().map(|feature| &feature.name).collect();
        if names.len() != features().count() {
            return content("a feature is named twice".to_owned());
        }
        if names.len() > FEATURES_MAX {
            return content(format!("more than {FEATURES_MAX} features"));
        }
        let Some(processing) = &self.processing else { return Ok(()) };
        processing.check(self).map_err(|text| ContractError::Content(format!("processing: {text}")))
    }

    /// What the graph itself takes and gives.
    #[must_use]
    pub fn of_graph(&self) -> Self {
        let Some(processing) = &self.processing else { return self.clone() };
        let graph = processing.graph.clone();
        Self { schema: self.schema, inputs: graph.inputs, outputs: graph.outputs, processing: None }
    }

    /// The only input, if it is encoded images.
    pub fn image_input(&self) -> Option<&TensorSpec> {
        let [only] = self.inputs.as_slice() else { return None };
        self.processing.as_ref()?.image_from(&only.name).map(|_| only)
    }

    /// The one input that is pictures, encoded or decoded, on which drift is watched; none where there are several, or columns as well.
    pub fn picture_input(&self) -> Option<PictureInput<'_>> {
        let is_encoded = |spec: &&TensorSpec| {
            self.processing.as_ref().is_some_and(|steps| steps.image_from(&spec.name).is_some())
        };
        let encoded = self.inputs.iter().filter(is_encoded).map(PictureInput::Encoded);
        let decoded = self
            .inputs
            .iter()
            .filter_map(|spec| spec.image.as_ref().map(|image| PictureInput::Decoded(spec, image)));
        let mut all = encoded.chain(decoded);
        match (all.next(), all.next(), self.observed_inputs().next()) {
            (Some(only), None, None) => Some(only),
            _ => None, // nobody has told which of them a row of a baseline is
        }
    }

    /// Checks that `tensors` are exactly the inputs of the contract, in any order, each of the right type and shape.
    pub fn check_inputs(&self, tensors: &[Tensor]) -> Result<(), ContractError> {
        let expected = || {
            let names: Vec<_> = self.inputs.iter().map(|spec| format!("`{}`", spec.name)).collect();
            names.join(", ")
        };
        let known = |tensor: &&Tensor| !self.inputs.iter().any(|spec| spec.name == tensor.name);
        if let Some(tensor) = tensors.iter().find(known) {
            let name = tensor.name.clone();
            return Err(ContractError::UnknownInput { name, expected: expected() });
        }
        for spec in &self.inputs {
            let mut given = tensors.iter().filter(|tensor| tensor.name == spec.name);
            let (Some(tensor), None) = (given.next(), given.next()) else {
                let name = spec.name.clone();
                return Err(ContractError::MissingInput { name, expected: expected() });
            };
            spec.accept(tensor)?;
        }
        Ok(())
    }

    /// The output with `role`, if the contract has one.
    pub fn output_with(&self, role: Role) -> Option<&TensorSpec> {
        self.outputs.iter().find(|spec| spec.role == Some(role))
    }

    /// The inputs whose columns are named: drift is watched on them.
    pub fn observed_inputs(&self) -> impl Iterator<Item = &TensorSpec> {
        self.inputs.iter().filter(|spec| !spec.features.is_empty())
    }
}

impl TensorSpec {
    fn check(&self) -> Result<(), ContractError> {
        let content = |text: String| Err(ContractError::Content(text));
        let name = &self.name;
        if self.shape.iter().any(|&length| length < -1) {
            return content(format!("tensor `{name}`: a dimension is a length, or -1 for any"));
        }
        if self.features.len() > FEATURES_MAX {
            return content(format!("tensor `{name}`: more than {FEATURES_MAX} features"));
        }
        let columns = self.shape.get(1..).unwrap_or_default();
        let columns =
            columns.iter().try_fold(1_i64, |product, &length| product.checked_mul(length));
        let features = i64::try_from(self.features.len()).ok();
        if !self.features.is_empty() && columns != features {
            return content(format!("tensor `{name}`: as many features as columns are needed"));
        }
        let names: BTreeSet<_> = self.features.iter().map(|feature| &feature.name).collect();
        if names.len() != self.features.len() {
            return content(format!("tensor `{name}`: a feature is named twice"));
        }
        self.image.as_ref().and_then(|image| image.misfit(self)).map_or(Ok(()), content)
    }

    fn accept(&self, tensor: &Tensor) -> Result<(), ContractError> {
        if tensor.datatype != self.datatype {
            return Err(ContractError::Datatype {
                name: self.name.clone(),
                expected: self.datatype,
                given: tensor.datatype,
            });
        }
        let fits = |(&expected, &given): (&i64, &u64)| {
            expected == -1 || u64::try_from(expected) == Ok(given)
        };
        let same_rank = self.shape.len() == tensor.shape.len();
        if !same_rank || !self.shape.iter().zip(&tensor.shape).all(fits) {
            return Err(ContractError::Shape {
                name: self.name.clone(),
                expected: self.shape.clone(),
                given: tensor.shape.clone(),
            });
        }
        self.accept_numbers(tensor)
    }

    fn accept_numbers(&self, tensor: &Tensor) -> Result<(), ContractError> {
        let found = match self.numbers {
            Numbers::Any => None,
            Numbers::Finite => tensor.first_not_finite(),
        };
        let refused = |(index, given)| {
            Err(ContractError::NotFinite { name: self.name.clone(), index, given })
        };
        found.map_or(Ok(()), refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contract() -> IoContract {
        let json = br#"{"schema":1,
            "inputs":[{"name":"x","datatype":"FP32","shape":[-1,2],
                       "features":[{"name":"a","group":"g"},{"name":"b","group":"g"}]}],
            "outputs":[{"name":"y","datatype":"INT64","shape":[-1],"role":"class"}]}"#;
        IoContract::parse(json).unwrap()
    }

    #[test]
    fn a_request_that_keeps_the_contract_passes() {
        let x = Tensor::fp32("x", &[3, 2], &[0.0; 6]).unwrap();
        contract().check_inputs(&[x]).unwrap();
    }

    #[test]
    fn a_request_that_breaks_it_is_told_how() {
        let shape = Tensor::fp32("x", &[2, 3], &[0.0; 6]).unwrap();
        let name = Tensor::fp32("z", &[1, 2], &[0.0; 2]).unwrap();
        let twice = [(); 2].map(|()| Tensor::fp32("x", &[1, 2], &[0.0; 2]).unwrap());

        let told = |tensors: &[Tensor]| contract().check_inputs(tensors).unwrap_err().to_string();

        assert_eq!(told(&[shape]), "input `x`: expected shape [-1, 2], [2, 3] given");
        assert_eq!(told(&[name]), "unexpected input `z`; expected `x`");
        assert_eq!(told(&[]), "input `x` is missing; expected `x`");
        assert!(contract().check_inputs(&twice).is_err());
    }

    #[test]
    fn numbers_that_are_not_finite_pass_only_where_any_may_come() {
        let x = Tensor::fp32("x", &[1, 2], &[0.0, f32::NAN]).unwrap();
        let mut contract = contract();
        contract.check_inputs(std::slice::from_ref(&x)).unwrap();

        contract.inputs[0].numbers = Numbers::Finite;

        let told = contract.check_inputs(&[x]).unwrap_err().to_string();
        assert_eq!(told, "input `x`: expected finite numbers, element 1 is NaN");
        let json = serde_json::to_string(&contract.inputs[0]).unwrap();
        assert!(json.contains(r#""numbers":"finite""#), "{json}");
    }

    #[test]
    fn features_must_be_as_many_as_columns() {
        let mut contract = contract();
        contract.inputs[0].features.pop();
        assert!(contract.check().is_err());
    }
}
