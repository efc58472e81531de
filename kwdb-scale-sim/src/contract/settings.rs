//! The contract of a `SettingsControl`.

use kwdb_scale_core::ports::{PortErrorKind, SettingsControl};

use super::FactsFixture;
use super::wait::{fails, in_time, must};

/// A setting that every release has, whose value does no harm for the while of a test.
const NAME: &str = "server.time_until_store_dead";
const NO_NAME: &str = "kwdb_scale.no_such_setting";

/// Reads, sets, repeats and puts back `server.time_until_store_dead` on the cluster of the fixture, whose first
/// gateway is asked; the other gateways hear of it. A setting that does not exist has no value and cannot be set.
///
/// # Panics
/// When it does otherwise.
pub async fn settings_control(settings: &dyn SettingsControl, f: &FactsFixture<'_>) {
    let first = &f.gateways[0];
    let get = async || must(&format!("reading {NAME}"), settings.get(first, NAME).await);
    let before = get().await.unwrap_or_else(|| panic!("{NAME} has a value"));
    let none = must("reading a setting that does not exist", settings.get(first, NO_NAME).await);
    assert_eq!(none, None, "a setting that does not exist has no value");
    fails("setting what does not exist", settings.set(first, NO_NAME, "1").await);

    // What is set may be shown in another form (75s as 1m15s), so the form shown is what is compared.
    for _ in 0..2 {
        must("setting a value, and again", settings.set(first, NAME, "21m0s").await);
    }
    for gateway in &f.gateways {
        in_time(f.clock, &format!("{gateway} shows the new value"), async || {
            let shown = must("reading it", settings.get(gateway, NAME).await);
            (shown.as_deref() == Some("21m0s")).then_some(())
        })
        .await;
    }
    must("putting back what was read", settings.set(first, NAME, &before).await);
    in_time(f.clock, "the former value is back", async || {
        (get().await.as_ref() == Some(&before)).then_some(())
    })
    .await;

    let error = fails("reading where nobody listens", settings.get(&f.nobody, NAME).await);
    assert_eq!(error.kind(), PortErrorKind::Unreachable, "{}", error.chain());
    let error = fails("setting where nobody listens", settings.set(&f.nobody, NAME, "21m0s").await);
    assert_eq!(error.kind(), PortErrorKind::Unreachable, "{}", error.chain());
    assert_eq!(get().await, Some(before), "only what was set has changed");
}
