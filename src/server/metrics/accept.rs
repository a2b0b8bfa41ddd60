//! [`Format`]: which form of the metrics a request prefers (RFC 9110, section 12.5.1).

/// The weight of a media range without `q`, in thousandths.
const FULL_WEIGHT: u16 = 1000;
/// The version of the text format.
const VERSION: &str = "0.0.4";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    Json,
}

impl Format {
    /// The form that these `Accept` fields prefer. The text where both are preferred equally, where there is no such field,
    /// and where neither form is acceptable: a scraper that asks for a form that we do not have is served all the same, as
    /// RFC 9110 allows.
    pub(super) fn accepted<'a>(fields: impl Iterator<Item = &'a str>) -> Self {
        let mut text = Quality::default();
        let mut json = Quality::default();
        for range in fields.flat_map(|field| field.split(',')) {
            text.consider(range, ("text", "plain"));
            json.consider(range, ("application", "json"));
        }
        if json.weight > text.weight {
            Format::Json
        } else {
            Format::Text
        }
    }
}

/// How much a media type is preferred: the weight of the most specific range that it matches.
#[derive(Default)]
struct Quality {
    specificity: usize,
    weight: u16,
}

impl Quality {
    fn consider(&mut self, range: &str, (main, sub): (&str, &str)) {
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
            } else if is(name, "version") && main == "text" {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(fields: &[&str]) -> Format {
        Format::accepted(fields.iter().copied())
    }

    #[test]
    fn the_form_with_the_greater_weight_is_chosen_and_the_text_otherwise() {
        for (fields, format) in [
            (&[][..], Format::Text),
            (&[""], Format::Text),
            (&["*/*"], Format::Text),
            (&["application/json"], Format::Json),
            (&["Application/JSON"], Format::Json),
            (&["application/*"], Format::Json),
            (&["application/json;q=0"], Format::Text),
            (&["text/plain, application/json"], Format::Text),
            (&["application/json, text/plain"], Format::Text),
            (&["text/plain;q=0.5, application/json;q=0.6"], Format::Json),
            (
                &["text/plain;q=0.5", "application/json ; q=0.501"],
                Format::Json,
            ),
            (&["application/json;q=0.5, */*;q=0.4"], Format::Json),
            (&["application/json, */*"], Format::Text),
            // The most specific range decides, wherever it stands.
            (&["*/*, text/plain;q=0.1"], Format::Json),
            (&["text/plain;q=0.1, */*"], Format::Json),
            (&["text/*;q=0.9, text/plain;q=0.1, */*;q=0.5"], Format::Json),
            (&["text/*;q=0, application/json;q=0.001"], Format::Json),
            // Another version of the text is another format.
            (
                &["text/plain;version=1.0.0, application/json;q=0.1"],
                Format::Json,
            ),
            (
                &["text/plain;version=\"0.0.4\", application/json;q=0.1"],
                Format::Text,
            ),
            // What is malformed counts for nothing.
            (&["application/json;q=2"], Format::Text),
            (&["application/json;q=-1"], Format::Text),
            (&["application/json;q=0.5000"], Format::Text),
            (&["application/json;q="], Format::Text),
            (&["json, ;, /, application/json;x;q=0.1"], Format::Json),
            (&["image/png"], Format::Text),
        ] {
            assert_eq!(accepted(fields), format, "{fields:?}");
        }
    }

    #[test]
    fn prometheus_and_browsers_get_the_text() {
        for field in [
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,\
             application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
             text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        ] {
            assert_eq!(accepted(&[field]), Format::Text, "{field}");
        }
    }
}
