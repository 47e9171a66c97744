//! Rule by rule: what objects are accepted, and what they do. Every verdict is asked of the specification and of the
//! compiled tables.

#[cfg(test)]
mod advice;
#[cfg(test)]
mod agreement;
#[cfg(test)]
mod audit;
#[cfg(test)]
mod compiler;
#[cfg(test)]
mod deviations;
#[cfg(test)]
mod engine;
#[cfg(test)]
mod judge;
#[cfg(test)]
mod metamorphic;
#[cfg(test)]
mod objects;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod scene;
#[cfg(test)]
mod verdicts;
#[cfg(test)]
#[path = "../support/worlds.rs"]
mod worlds;
