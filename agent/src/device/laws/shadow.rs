//! What holds of an image that is compared with the live one before it is made live.

use sealift_protocol::directive::Likeness;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// An image that is to be compared first is made live only after that: when enough was seen and both agree, when little was seen and
    /// that is enough, or when nobody else answers. Until then, and where it is rejected, what was live stays.
    #[test]
    fn nothing_is_made_live_before_its_shadow_has_passed(
        story in prop::collection::vec(beats(), 0..150),
    ) {
        use phase::{Phase as Inner, Step};
        let mut played = Story::new();
        let model = &models()[0];
        played.play(&Beat::Directive { rise: 1, versions: (1, 0), terms: NO_TERMS });
        played.leave_in_peace();
        for beat in &story {
            // Every other image is compared.
            let tame = if let Beat::Directive { rise, versions, terms } = beat {
                let shadow = terms.shadow.or(Some(Quiet::Fail));
                let versions = (versions.0.max(1), versions.1);
                Some(Beat::Directive { rise: rise + 1, versions, terms: Terms { shadow, ..*terms } })
            } else {
                matches!(beat, Beat::TornRestart { .. }).then_some(Beat::Restart)
            };
            let before = played.world.device.slots.get(model).cloned();
            played.play(tame.as_ref().unwrap_or(beat));
            let (Some(before), Some(after)) = (before, played.world.device.slots.get(model)) else {
                continue;
            };
            let begins = !matches!(before.phase, Inner::Activating { .. });
            let Inner::Activating { attempt, live: Some(live), .. } = &after.phase else { continue };
            let is_alone = live.starts_failed >= crate::limits::STARTS_FAILED_MAX
                || live.image().index == attempt.desired.index;
            if !begins || is_alone {
                continue;
            }
            prop_assert!(attempt.alike_at.is_some(), "{:?}", attempt);
            let Inner::Preparing { step: Step::Shadowing(_), .. } = &before.phase else { continue };
            prop_assert_eq!(before.serving(), after.serving());
            let (rules, shadow) = (attempt.desired.trial.shadow, after.shadowed.clone().unwrap());
            let is_said = match rules.at_end(&shadow.counts) {
                Likeness::Alike => true,
                Likeness::Unseen => rules.quiet == Quiet::Pass,
                Likeness::Unlike => false,
            };
            prop_assert!(is_said || rules.is_off(), "{:?} by {:?}", shadow, rules);
        }
    }
}
