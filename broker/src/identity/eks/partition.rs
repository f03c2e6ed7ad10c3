//! The STS host that a token is for.
//!
//! A cluster's authenticator fetches only from hosts that it knows for its partition, without a port, and the signature's region
//! must be the host's. The names are those of AWS's endpoint rules (botocore's `partitions.json`).

use thiserror::Error;

/// Which of a region's STS endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StsEndpoint {
    /// `sts.<region>`; what a cluster accepts everywhere.
    #[default]
    Regional,
    /// Validated cryptography, where the region has it.
    Fips,
    /// IPv4 and IPv6.
    DualStack,
    /// Both.
    FipsDualStack,
}

/// A text that is no AWS region.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is no AWS region; regions look like us-east-1")]
pub struct RegionError(String);

/// A partition's domains: for ordinary and for dual-stack endpoints.
const PARTITIONS: [(&str, &str, &str); 8] = [
    ("cn-", "amazonaws.com.cn", "api.amazonwebservices.com.cn"),
    ("us-gov-", "amazonaws.com", "api.aws"),
    ("us-iso-", "c2s.ic.gov", "api.aws.ic.gov"),
    ("us-isob-", "sc2s.sgov.gov", "api.aws.scloud"),
    ("eu-isoe-", "cloud.adc-e.uk", "api.cloud-aws.adc-e.uk"),
    ("us-isof-", "csp.hci.ic.gov", "api.aws.hci.ic.gov"),
    ("eusc-", "amazonaws.eu", "api.amazonwebservices.eu"),
    ("", "amazonaws.com", "api.aws"),
];

/// The host of a region's STS.
pub(super) fn sts_host(region: &str, endpoint: StsEndpoint) -> Result<String, RegionError> {
    if !is_region(region) {
        return Err(RegionError(region.chars().take(64).collect()));
    }
    let (_, domain, dual) = PARTITIONS
        .iter()
        .find(|(prefix, ..)| region.starts_with(prefix))
        .ok_or_else(|| RegionError(region.to_owned()))?;
    Ok(match endpoint {
        StsEndpoint::Regional => format!("sts.{region}.{domain}"),
        StsEndpoint::Fips => format!("sts-fips.{region}.{domain}"),
        StsEndpoint::DualStack => format!("sts.{region}.{dual}"),
        StsEndpoint::FipsDualStack => format!("sts-fips.{region}.{dual}"),
    })
}

/// Words of letters, then a number: `us-east-1`, `us-isob-east-1`, `eusc-de-east-1`.
fn is_region(region: &str) -> bool {
    let Some((words, number)) = region.rsplit_once('-') else { return false };
    let is_word = |word: &str| word.len() > 1 && word.bytes().all(|byte| byte.is_ascii_lowercase());
    !number.is_empty()
        && number.bytes().all(|byte| byte.is_ascii_digit())
        && words.contains('-')
        && words.split('-').all(is_word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_partition_has_its_hosts() {
        let cases = [
            ("us-east-1", StsEndpoint::Regional, "sts.us-east-1.amazonaws.com"),
            ("us-east-2", StsEndpoint::Fips, "sts-fips.us-east-2.amazonaws.com"),
            ("us-east-2", StsEndpoint::DualStack, "sts.us-east-2.api.aws"),
            ("us-east-2", StsEndpoint::FipsDualStack, "sts-fips.us-east-2.api.aws"),
            ("cn-north-1", StsEndpoint::Regional, "sts.cn-north-1.amazonaws.com.cn"),
            ("cn-north-1", StsEndpoint::DualStack, "sts.cn-north-1.api.amazonwebservices.com.cn"),
            ("us-gov-west-1", StsEndpoint::Regional, "sts.us-gov-west-1.amazonaws.com"),
            ("us-iso-east-1", StsEndpoint::Regional, "sts.us-iso-east-1.c2s.ic.gov"),
            ("us-isob-east-1", StsEndpoint::Regional, "sts.us-isob-east-1.sc2s.sgov.gov"),
            ("eu-isoe-west-1", StsEndpoint::Regional, "sts.eu-isoe-west-1.cloud.adc-e.uk"),
            ("us-isof-south-1", StsEndpoint::Regional, "sts.us-isof-south-1.csp.hci.ic.gov"),
            ("eusc-de-east-1", StsEndpoint::Regional, "sts.eusc-de-east-1.amazonaws.eu"),
            ("eusc-de-east-1", StsEndpoint::DualStack, "sts.eusc-de-east-1.api.amazonwebservices.eu"),
        ];
        for (region, endpoint, host) in cases {
            assert_eq!(sts_host(region, endpoint).unwrap(), host);
        }
    }

    #[test]
    fn what_is_no_region_makes_no_host() {
        for bad in
            ["", "us", "us-east", "us-east-", "1", "us-east-1.evil.example", "US-EAST-1", "us--1", "a/b-1", "u-e-1"]
        {
            assert!(sts_host(bad, StsEndpoint::Regional).is_err(), "{bad}");
        }
    }
}
