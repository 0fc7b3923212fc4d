//! When a token counts. Times are Unix seconds, compared with the clock of whoever asks.

use std::time::Duration;

use super::claims::{Claims, TokenKind};
use super::error::TokenError;

/// The longest life of an application's token (engine-api §8.2).
const APP_LIFE_MAX: Duration = Duration::from_secs(3600);

/// How far an application's clock may be ahead (engine-api §8.2).
const APP_SKEW_MAX: Duration = Duration::from_secs(300);

pub(super) fn check(claims: &Claims, now: f64) -> Result<(), TokenError> {
    if claims.exp.is_some_and(|exp| now >= exp) {
        return Err(TokenError::Expired);
    }
    if claims.nbf.is_some_and(|nbf| now < nbf) {
        return Err(TokenError::NotYetValid);
    }
    if claims.kind == Some(TokenKind::App) {
        let (Some(iat), Some(exp)) = (claims.iat, claims.exp) else {
            return Err(TokenError::Claims(
                "an application's token needs `iat` and `exp`",
            ));
        };
        if iat > now + APP_SKEW_MAX.as_secs_f64() {
            return Err(TokenError::NotYetValid);
        }
        if exp <= iat {
            return Err(TokenError::Claims("its end is not after its beginning"));
        }
        if exp - iat > APP_LIFE_MAX.as_secs_f64() {
            return Err(TokenError::Claims(
                "an application's token lives an hour at most",
            ));
        }
    }
    Ok(())
}
