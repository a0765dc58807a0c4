//! S8: documents beside the data, and what storage alone can tell.

use std::collections::BTreeSet;

use stillpoint_storage::{DocName, ProviderErrorKind as Kind, Snapshot};

use super::super::frame::{Flaw, ensure, poll_and_drop, same};
use super::trial::{Trial, identities, refused};

async fn put(trial: &Trial, name: &DocName, bytes: &[u8]) -> Result<(), Flaw> {
    Ok(trial.provider()?.put_doc(trial.cx(), name, bytes).await?)
}

async fn stored(trial: &Trial, name: &DocName) -> Result<Option<Vec<u8>>, Flaw> {
    Ok(trial.provider()?.get_doc(trial.cx(), name).await?)
}

async fn drop_docs(trial: &Trial, names: &[DocName]) -> Result<(), Flaw> {
    for name in names {
        trial.provider()?.delete_doc(trial.cx(), name).await?;
    }
    Ok(())
}

pub(super) async fn documents_come_back_as_they_were(trial: Trial) -> Result<(), Flaw> {
    let big: Vec<u8> = (0..=255).cycle().take(1 << 18).collect();
    let mut names = Vec::new();
    for bytes in [b"".as_slice(), b"{\"text\": 1}", b"\0\xff\r\n", &big] {
        let name = trial.doc_name()?;
        put(&trial, &name, bytes).await?;
        let found = stored(&trial, &name).await?;
        ensure(found.as_deref() == Some(bytes), || {
            let length = found.map(|found| found.len());
            format!("a document of {} bytes comes back with {length:?}, or as others", bytes.len())
        })?;
        names.push(name);
    }
    drop_docs(&trial, &names).await
}

pub(super) async fn a_document_takes_the_place_of_the_one_before(trial: Trial) -> Result<(), Flaw> {
    let (one, other) = (trial.doc_name()?, trial.doc_name()?);
    put(&trial, &other, b"other").await?;
    for bytes in [b"the first one, long".as_slice(), b"second", b"the third and longest of all"] {
        put(&trial, &one, bytes).await?;
        same(
            "a document that was stored again",
            &stored(&trial, &one).await?,
            &Some(bytes.to_vec()),
        )?;
    }
    same("another document", &stored(&trial, &other).await?, &Some(b"other".to_vec()))?;
    let names = trial.provider()?.list_docs(trial.cx()).await?;
    let count = names.iter().filter(|name| **name == one).count();
    same("how often a document is listed", &count, &1)?;
    drop_docs(&trial, &[one, other]).await
}

pub(super) async fn documents_are_listed_in_order(trial: Trial) -> Result<(), Flaw> {
    let stem = trial.name();
    let mut names = Vec::new();
    for end in ["b", "a.json", "B", "a", "a-1"] {
        let name = DocName::new(format!("{stem}.{end}")).map_err(|e| Flaw::new(e.to_string()))?;
        put(&trial, &name, end.as_bytes()).await?;
        names.push(name);
    }
    let listed = trial.provider()?.list_docs(trial.cx()).await?;
    ensure(listed.is_sorted(), || format!("documents are listed out of order: {listed:?}"))?;
    let ours: Vec<_> = listed.into_iter().filter(|name| names.contains(name)).collect();
    names.sort();
    same("the documents that are listed", &ours, &names)?;
    for name in &names {
        let end =
            name.as_str().rsplit_once(&format!("{stem}.")).map(|(_, end)| end.as_bytes().to_vec());
        same(&format!("the document {name}"), &stored(&trial, name).await?, &end)?;
    }
    drop_docs(&trial, &names).await
}

pub(super) async fn a_deleted_document_is_gone(trial: Trial) -> Result<(), Flaw> {
    let (name, never) = (trial.doc_name()?, trial.doc_name()?);
    same("a document that never was", &stored(&trial, &never).await?, &None)?;
    put(&trial, &name, b"text").await?;
    for _ in 0..2 {
        drop_docs(&trial, &[name.clone(), never.clone()]).await?;
        same("a document that was deleted", &stored(&trial, &name).await?, &None)?;
    }
    let listed = trial.provider()?.list_docs(trial.cx()).await?;
    ensure(!listed.contains(&name), || format!("{name} was deleted, and is listed"))
}

pub(super) async fn documents_are_there_after_a_crash(trial: Trial) -> Result<(), Flaw> {
    let (name, gone) = (trial.doc_name()?, trial.doc_name()?);
    put(&trial, &name, b"old").await?;
    put(&trial, &name, b"new").await?;
    put(&trial, &gone, b"gone").await?;
    drop_docs(&trial, std::slice::from_ref(&gone)).await?;
    trial.reopen().await?;
    same("a document after a crash", &stored(&trial, &name).await?, &Some(b"new".to_vec()))?;
    same("a deleted document after a crash", &stored(&trial, &gone).await?, &None)?;
    drop_docs(&trial, &[name]).await
}

pub(super) async fn a_dropped_document_is_the_old_or_the_new(trial: Trial) -> Result<(), Flaw> {
    let name = trial.doc_name()?;
    let (old, new) = (vec![b'o'; 100_000], vec![b'n'; 150_000]);
    for polls in 0..6 {
        put(&trial, &name, &old).await?;
        let provider = trial.provider()?;
        poll_and_drop(provider.put_doc(trial.cx(), &name, &new), polls).await;
        let found = stored(&trial, &name).await?;
        ensure(found.as_ref().is_some_and(|found| *found == old || *found == new), || {
            let length = found.map(|found| found.len());
            format!("a document that was being stored is neither the old nor the new: {length:?}")
        })?;
    }
    drop_docs(&trial, &[name]).await
}

pub(super) async fn a_listing_tells_what_settling_told(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.spec()?;
    let snapshots = trial.settled(&spec).await?;
    let mut listed = Vec::new();
    for member in &spec.members {
        listed.extend(trial.of_token(&member.volume, &spec.token).await?);
    }
    same("what is listed of a set", &identities(&listed), &identities(&snapshots))?;
    trial.clear(&spec.token).await
}

pub(super) async fn a_listing_has_everything_once_in_order(trial: Trial) -> Result<(), Flaw> {
    let volume = trial.first()?.volume.clone();
    let mut specs = Vec::new();
    let mut wanted = BTreeSet::new();
    for _ in 0..5 {
        let spec = trial.one()?;
        wanted.extend(trial.settled(&spec).await?.iter().map(Snapshot::reference));
        specs.push(spec);
    }
    let listed = trial.listed(&volume).await?;
    let ids: Vec<_> = listed.iter().map(|snapshot| &snapshot.id).collect();
    ensure(ids.is_sorted_by(|a, b| a < b), || format!("a listing is out of order: {ids:?}"))?;
    let ours = listed.iter().map(Snapshot::reference).filter(|id| wanted.contains(id)).count();
    same("how many of our snapshots are listed", &ours, &wanted.len())?;
    ensure(listed.iter().all(|snapshot| snapshot.volume == volume), || {
        format!("snapshots of other volumes are listed: {listed:?}")
    })?;
    for spec in specs {
        trial.clear(&spec.token).await?;
    }
    Ok(())
}

pub(super) async fn what_is_no_page_mark_is_refused(trial: Trial) -> Result<(), Flaw> {
    let volume = trial.first()?.volume.clone();
    let listed = trial.provider()?.list(trial.cx(), &volume, Some("\u{1}\n".to_owned())).await;
    refused("listing after what is no page mark", listed, &Kind::Invalid).map(drop)
}
