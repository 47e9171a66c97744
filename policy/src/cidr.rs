//! Address ranges.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};

/// An address range with its host bits cleared.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cidr {
    address: IpAddr,
    prefix_length: u8,
}

/// A text is not an address range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an address range: write it like 10.1.0.0/16 or fd00:1::/64")]
pub struct InvalidCidr {
    /// The text as given.
    pub text: String,
}

impl Cidr {
    /// A range; host bits of `address` are cleared. None if the prefix is longer than the family's addresses.
    #[must_use]
    pub fn new(address: IpAddr, prefix_length: u8) -> Option<Self> {
        let address = match address {
            IpAddr::V4(v4) if prefix_length <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix_length)).unwrap_or(0);
                IpAddr::V4((u32::from(v4) & mask).into())
            }
            IpAddr::V6(v6) if prefix_length <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix_length)).unwrap_or(0);
                IpAddr::V6((u128::from(v6) & mask).into())
            }
            IpAddr::V4(_) | IpAddr::V6(_) => return None,
        };
        Some(Self { address, prefix_length })
    }

    /// The lowest address.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// In bits, within the family of the address.
    #[must_use]
    pub const fn prefix_length(&self) -> u8 {
        self.prefix_length
    }

    /// Just one address.
    #[must_use]
    pub const fn host(address: IpAddr) -> Self {
        let prefix_length = if address.is_ipv4() { 32 } else { 128 };
        Self { address, prefix_length }
    }

    /// Whether another range lies inside, or is the same.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.prefix_length <= other.prefix_length && self.contains(other.address)
    }

    /// The key of the label that stands for the range (LBL-8).
    #[must_use]
    pub fn label_key(&self) -> String {
        let text = self.address.to_string().replace(':', "-");
        let start = if text.starts_with('-') { "0" } else { "" };
        let end = if text.ends_with('-') { "0" } else { "" };
        format!("{start}{text}{end}/{}", self.prefix_length)
    }

    /// The range of a label's key (LBL-8).
    #[must_use]
    pub fn from_label_key(key: &str) -> Option<Self> {
        key.replace('-', ":").parse().ok()
    }

    /// Whether an address lies inside; an address of the other family never does.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && Self::new(address, self.prefix_length) == Some(*self)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_length)
    }
}

impl fmt::Debug for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Cidr {
    type Err = InvalidCidr;
    fn from_str(text: &str) -> Result<Self, InvalidCidr> {
        let parse = || {
            let (address, length) = text.split_once('/')?;
            // One spelling for each length: no sign, no leading zero.
            let plain = length.bytes().all(|byte| byte.is_ascii_digit()) && (length == "0" || !length.starts_with('0'));
            Self::new(address.parse().ok()?, length.parse().ok().filter(|_| plain)?)
        };
        parse().ok_or_else(|| InvalidCidr { text: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_bits_are_cleared() {
        assert_eq!("10.1.2.3/16".parse::<Cidr>().unwrap().to_string(), "10.1.0.0/16");
        assert_eq!("fd00:1::5/64".parse::<Cidr>().unwrap().to_string(), "fd00:1::/64");
        assert_eq!("1.2.3.4/0".parse::<Cidr>().unwrap().to_string(), "0.0.0.0/0");
    }

    #[test]
    fn lbl_8_label_keys() {
        for (range, key) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("::/0", "0--0/0"),
            ("2001:db8::/32", "2001-db8--0/32"),
            ("::1/128", "0--1/128"),
        ] {
            let range: Cidr = range.parse().unwrap();
            assert_eq!(range.label_key(), key);
            assert_eq!(Cidr::from_label_key(key), Some(range));
        }
    }

    #[test]
    fn containment_is_within_a_family() {
        let range: Cidr = "10.1.0.0/16".parse().unwrap();
        assert!(range.contains("10.1.255.255".parse().unwrap()));
        assert!(!range.contains("10.2.0.0".parse().unwrap()));
        assert!(!range.contains("::ffff:10.1.0.1".parse().unwrap()));
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for bad in ["10.0.0.0", "10.0.0.0/33", "::/129", "x/8", "10.0.0.0/-1", "10.0.0.0/08", "10.0.0.0/+8", ""] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }
}
