//! [`Quality`]: how much the `Accept` fields of a request prefer a media type (RFC 9110, section 12.5.1).

/// The weight of a media range without `q`, in thousandths.
const FULL_WEIGHT: u16 = 1000;
/// The version of Prometheus' text format.
const VERSION: &str = "0.0.4";

/// How much a media type is preferred: the weight of the most specific range that it matches.
#[derive(Default)]
pub(super) struct Quality {
    specificity: usize,
    /// In thousandths.
    pub(super) weight: u16,
}

impl Quality {
    /// Returns `true` if a range that is acceptable names the type itself, without a wildcard.
    pub(super) fn is_named(&self) -> bool {
        self.specificity >= 3 && self.weight > 0
    }

    /// Considers one media range of an `Accept` field.
    pub(super) fn consider(&mut self, range: &str, (main, sub): (&str, &str)) {
        let mut parameters = range.split(';').map(str::trim);
        let Some((range_main, range_sub)) = parameters.next().and_then(|all| all.split_once('/'))
        else {
            return;
        };
        let is = |range: &str, name: &str| range.eq_ignore_ascii_case(name);
        let mut specificity = match (range_main, range_sub) {
            ("*", "*") => 1,
            (range, "*") if is(range, main) => 2,
            (range, subtype) if is(range, main) && is(subtype, sub) => 3,
            _ => return,
        };
        let mut weight = Some(FULL_WEIGHT);
        for (name, value) in parameters.filter_map(|parameter| parameter.split_once('=')) {
            if is(name, "q") {
                weight = thousandths(value);
            } else if is(name, "version") && sub == "plain" {
                if value.trim_matches('"') != VERSION {
                    return;
                }
                specificity = 4;
            }
        }
        // A range with a malformed weight is passed over.
        if let Some(weight) = weight
            && specificity >= self.specificity
        {
            *self = Quality {
                specificity,
                weight,
            };
        }
    }
}

/// A weight, `0` to `1` with up to three digits after the point (RFC 9110, section 12.4.2).
fn thousandths(weight: &str) -> Option<u16> {
    let (whole, digits) = weight.split_once('.').unwrap_or((weight, ""));
    let are_digits = digits.len() <= 3 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let fraction: u16 = format!("{digits:0<3}").parse().ok()?;
    match (whole, fraction) {
        _ if !are_digits => None,
        ("0", fraction) => Some(fraction),
        ("1", 0) => Some(FULL_WEIGHT),
        _ => None,
    }
}
