use proptest::prelude::*;

use super::*;

/// The secret of AWS's documentation, which opens nothing.
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// 2026-11-20T08:30:15Z.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_163_415)
}

fn audience(region: &str, host: &str, cluster: &str) -> Audience {
    Audience { region: region.to_owned(), host: host.to_owned(), cluster: cluster.to_owned() }
}

fn credentials(key: &str, secret: &str, token: Option<&str>) -> Credentials {
    Credentials::new(key, secret, token.map(str::to_owned), None, "test")
}

/// The URL inside a token.
fn url_of(token: &EksToken) -> String {
    assert!(token.header().is_sensitive());
    let header = token.header();
    let encoded = header.to_str().unwrap().strip_prefix("Bearer k8s-aws-v1.").unwrap().to_owned();
    String::from_utf8(URL_SAFE_NO_PAD.decode(encoded).unwrap()).unwrap()
}

fn signature(url: &str) -> &str {
    url.split('&').find_map(|pair| pair.strip_prefix("X-Amz-Signature=")).unwrap()
}

#[test]
fn the_signatures_are_those_of_two_other_signers() {
    // Each agrees with botocore and with the JavaScript SDK for the same input.
    let session = "IQoJb3JpZ2luX2VjEXAMPLE//////////wEaCXVzLXdlc3QtMiJHMEUCIQ+a/b=c==";
    let cases = [
        (
            "us-east-1",
            "sts.us-east-1.amazonaws.com",
            "AKIDEXAMPLE",
            SECRET,
            None,
            "demo",
            "79f26005b5adc4d90de222ad0f8d8cd1d70e3c7f5d08acf6e493da3da04459da",
        ),
        (
            "us-west-2",
            "sts.us-west-2.amazonaws.com",
            "ASIAEXAMPLE",
            SECRET,
            Some(session),
            "data-platform_1",
            "6397db256a53d94d2ad3bb779a16c469fc8e292e1fb9e9742f524115c77ea4e0",
        ),
        (
            "us-east-2",
            "sts-fips.us-east-2.amazonaws.com",
            "ASIAEXAMPLE",
            SECRET,
            Some("A+/="),
            "demo",
            "8c5facf7f07ff4e12d2e871888f46b8cf6db1bdcea4e4b7a3804e1f5cd4d6d6e",
        ),
        (
            "us-east-2",
            "sts.us-east-2.api.aws",
            "ASIAEXAMPLE",
            SECRET,
            Some("A+/="),
            "demo",
            "79bb5542e6117621cfbb1cdd8f89707754df9dcba8ff5b1a6148f491a067a7ce",
        ),
        (
            "cn-north-1",
            "sts.cn-north-1.amazonaws.com.cn",
            "ASIAEXAMPLE",
            SECRET,
            Some("A+/="),
            "demo",
            "64228649bc302b196c6b1a520c5c338fcd2d5d074b9a8a302022705eb224d04a",
        ),
        (
            "us-east-1",
            "sts.amazonaws.com",
            "ASIAEXAMPLE",
            SECRET,
            Some("A+/="),
            "demo",
            "b0816818e3d105ea5971d2b617de0a3cc22ca90e7a351d040cf927d0b87b6b57",
        ),
        (
            "eusc-de-east-1",
            "sts.eusc-de-east-1.amazonaws.eu",
            "ASIAEXAMPLE",
            "s",
            Some("A+/="),
            "demo",
            "1b4f49ea08497887e87da8fcd9e5d1c5bc38163868c1b1d751c2ab4f80c82bf9",
        ),
    ];
    for (region, host, key, secret, token, cluster, expected) in cases {
        let made = presign(&credentials(key, secret, token), &audience(region, host, cluster), now()).unwrap();
        assert_eq!(signature(&url_of(&made)), expected, "{host}");
    }
}

#[test]
fn a_token_lives_as_long_as_it_may_and_as_its_keys_do() {
    let place = audience("us-east-1", "sts.us-east-1.amazonaws.com", "demo");
    let token = presign(&credentials("AKIDEXAMPLE", SECRET, None), &place, now()).unwrap();
    assert_eq!(token.good_until, now() + Duration::from_mins(14));
    let dying = Credentials::new("ASIAEXAMPLE", SECRET, None, Some(now() + Duration::from_mins(5)), "test");
    let token = presign(&dying, &place, now()).unwrap();
    assert_eq!(token.good_until, now() + Duration::from_mins(4));
    assert!(token.renew_at < token.good_until);
}

#[test]
fn a_token_that_a_cluster_would_refuse_for_its_length_is_not_made() {
    let place = audience("us-east-1", "sts.us-east-1.amazonaws.com", "demo");
    let long = "x".repeat(3000);
    let error = presign(&credentials("ASIAEXAMPLE", SECRET, Some(&long)), &place, now()).unwrap_err();
    assert!(error.what.contains("a cluster takes 4096"), "{error}");
    assert!(!format!("{error:?}").contains(&long));
}

#[test]
fn nothing_prints_a_token() {
    let place = audience("us-east-1", "sts.us-east-1.amazonaws.com", "demo");
    let token = presign(&credentials("AKIDEXAMPLE", SECRET, Some("TOKEN")), &place, now()).unwrap();
    let shown = format!("{token:?} {:?}", token.header());
    assert!(!shown.contains("k8s-aws-v1") && !shown.contains("AKIDEXAMPLE"), "{shown}");
}

#[test]
fn the_rules_of_the_verifier_are_ours_too() {
    let place = audience("us-east-1", "sts.us-east-1.amazonaws.com", "demo");
    let token = presign(&credentials("ASIAEXAMPLE", SECRET, Some("A")), &place, now()).unwrap();
    let good = url_of(&token);
    assert_eq!(verify(&good, &place), Ok(()));
    let breaches = [
        good.replace("https://", "http://"),
        good.replace("amazonaws.com/", "amazonaws.com:443/"),
        good.replace("amazonaws.com/", "amazonaws.com/x/"),
        good.replace("sts.us-east-1.", "sts.us-east-2."),
        format!("{good}&x-id=GetCallerIdentity"),
        format!("{good}&X-Amz-Expires=60"),
        good.replace("X-Amz-Expires=60&", ""),
    ];
    for breach in breaches {
        assert!(verify(&breach, &place).is_err(), "{breach}");
    }
}

proptest! {
    #[test]
    fn whatever_the_keys_are_a_token_keeps_the_rules(
        key in "[A-Z0-9]{16,20}", secret in "[A-Za-z0-9/+]{40}", session in "[A-Za-z0-9/+=]{0,900}",
        cluster in "[0-9A-Za-z][A-Za-z0-9_-]{0,99}", seconds in 1_600_000_000_u64..4_000_000_000,
    ) {
        let place = audience("eu-central-1", "sts.eu-central-1.amazonaws.com", &cluster);
        let session = Some(session.as_str()).filter(|session| !session.is_empty());
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let token = presign(&credentials(&key, &secret, session), &place, time).unwrap();
        let url = url_of(&token);
        prop_assert_eq!(verify(&url, &place), Ok(()));
    }
}
