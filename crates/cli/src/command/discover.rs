//! `discover`.

use super::tell;
use crate::args::{FolderArgs, Global};
use crate::error::Outcome;
use crate::exit::Exit;
use crate::out::Out;
use crate::place::{Places, check_source};
use crate::site::{self, Absent, Site};
use crate::view::DiscoverView;

/// Shows what is there. A named folder needs no state file; nothing is made for it.
pub(super) async fn run(args: &FolderArgs, global: &Global, out: Out) -> Outcome<Exit> {
    let places = Places::of(global, args.dir.as_deref())?;
    let source = match &places.source {
        Some(source) => source.clone(),
        None => Site::open(&places, Absent::Refuse).await?.source,
    };
    check_source(&source)?;
    let inventory = site::inventory(&source).await?;
    tell(out, &DiscoverView::of(&source, &inventory), Exit::Done, None)
}
