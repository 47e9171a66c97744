//! Explanations against the specification.

#[cfg(test)]
mod cases;
