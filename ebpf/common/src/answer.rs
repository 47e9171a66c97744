//! What an endpoint's policy says of a port, whoever the peer is: the same for many new connections, so that each CPU
//! remembers its last answers.
//!
//! An answer is of one generation, and is never given for another one. What a generation says never changes: its set is
//! written before packets read it, and again after the last packet that did.

use crate::layout::{Address, EndpointValue};

/// Answers that a CPU remembers; a power of two.
pub const ANSWERS: u32 = 64;

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Question {
    /// The endpoint's address.
    pub local: Address,
    /// Which tables.
    pub generation: u32,
    /// Interface index; 0 if nothing was asked.
    pub endpoint: u32,
    /// The port, the protocol and who began.
    pub port: u64,
}

/// What is said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Answer {
    /// How the endpoint is judged.
    pub own: EndpointValue,
    /// What the policy says of the port to anyone: a class.
    pub anyone: u64,
    /// The band of the port.
    pub band: u16,
    /// 1 if the address is the endpoint's.
    pub owned: u8,
    /// Zero.
    pub padding: [u8; 5],
}

/// A question and its answer; a cache line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C, align(64))]
pub struct Answered {
    /// What was asked last.
    pub question: Question,
    /// What was said.
    pub answer: Answer,
}

impl Question {
    /// Where it is remembered.
    #[must_use]
    #[inline(always)]
    pub const fn slot(&self) -> u32 {
        let mixed = (self.port ^ (self.endpoint as u64) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 48) as u32 & (ANSWERS - 1)
    }
}

impl Answer {
    /// Before there is one.
    pub(crate) const NONE: Self = Self {
        own: EndpointValue { identity: 0, policy: 0, shadow: 0, flags: 0 },
        anyone: 0,
        band: 0,
        owned: 0,
        padding: [0; 5],
    };
}

impl Answered {
    /// Nothing.
    pub const NOTHING: Self = Self {
        question: Question { local: Address { words: [0; 2] }, generation: 0, endpoint: 0, port: 0 },
        answer: Answer::NONE,
    };

    /// Whether it is about this question.
    #[must_use]
    #[inline(always)]
    pub const fn is_about(&self, question: &Question) -> bool {
        let Question { local, generation, endpoint, port } = question;
        let other = (self.question.local.words[0] ^ local.words[0])
            | (self.question.local.words[1] ^ local.words[1])
            | (self.question.port ^ *port)
            | (self.question.generation ^ *generation) as u64
            | (self.question.endpoint ^ *endpoint) as u64;
        other == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_given_to_its_own_question_only() {
        let question =
            Question { local: Address { words: [1, 2] }, generation: 3, endpoint: 4, port: 80 | 6 << 16 | 1 << 24 };
        let answered = Answered { question, answer: Answer::NONE };
        assert!(answered.is_about(&question));
        for other in [
            Question { local: Address { words: [0, 2] }, ..question },
            Question { local: Address { words: [1, 0] }, ..question },
            Question { generation: 5, ..question },
            // The node itself has any address: what is so of it is not of a pod.
            Question { endpoint: 5, ..question },
            Question { port: question.port ^ 1, ..question },
            Question { port: question.port ^ 1 << 16, ..question },
            Question { port: question.port ^ 1 << 24, ..question },
        ] {
            assert!(!answered.is_about(&other), "{other:?}");
        }
    }
}
