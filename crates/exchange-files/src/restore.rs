//! The restore side: at rest there is nothing to dismount and nothing to mount.

use std::{io, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use stillpoint_context::{Cx, HostPath};
use stillpoint_ese::{LogName, read_database_header};
use stillpoint_exchange::{
    ExchangeRestore, PluginError, PluginErrorKind, PluginResult, Recovered, RestoreSpec,
};
use stillpoint_model::inventory::FileRole;

use crate::{
    plugin::{FilesPlugin, Place},
    walk::open,
    watch::is_in_use,
};

#[async_trait]
impl ExchangeRestore for FilesPlugin {
    /// Refuses a target of another host, and one that another process holds for itself. Changes nothing.
    async fn open(&self, cx: &Cx, spec: &RestoreSpec) -> PluginResult<()> {
        let (place, spec) = (Arc::clone(self.place()), spec.clone());
        cx.blocking("look at the target", move || {
            for (path, _) in &spec.files {
                let native = native(&place, path)?;
                match is_in_use(&native) {
                    Ok(false) => {}
                    Ok(true) => {
                        return Err(PluginError::new(
                            PluginErrorKind::TargetInUse,
                            format!("{path} is held by another process"),
                        )
                        .without_effect());
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => {
                        return Err(
                            PluginError::io(format_args!("open {path}"), error).without_effect()
                        );
                    }
                }
            }
            Ok(())
        })
        .await?
    }

    /// Looks at the database that is there now and says what it needs; neither replays nor mounts.
    async fn finish(&self, cx: &Cx, spec: &RestoreSpec) -> PluginResult<Recovered> {
        let (place, spec) = (Arc::clone(self.place()), spec.clone());
        cx.blocking("look at the restored files", move || recovered(&place, &spec)).await?
    }

    /// Nothing to put back: `open` changes nothing.
    async fn cancel(&self, _: &Cx, _: &RestoreSpec) -> PluginResult<()> {
        Ok(())
    }
}

fn recovered(place: &Place, spec: &RestoreSpec) -> PluginResult<Recovered> {
    let mut recovered = Recovered::files_only();
    let base = spec.files.iter().find_map(|(path, role)| {
        let name = LogName::parse(path.file_name()?)?;
        (*role == FileRole::Log).then_some(name.base)
    });
    for (path, _) in spec.files.iter().filter(|(_, role)| *role == FileRole::Database) {
        let native = native(place, path)?;
        let failed = |error| PluginError::io(format_args!("open {path}"), error).without_effect();
        let file = open(&native).map_err(failed)?;
        let header = read_database_header(&file)
            .map_err(|error| {
                PluginError::new(PluginErrorKind::Io, format!("{path}: {error}"))
                    .with_source(error)
                    .without_effect()
            })?
            .header;
        if let Some(required) = header.required() {
            let base = base.as_deref().unwrap_or("Enn");
            recovered.notes.push(format!(
                "{path} is not consistent by itself: replay its log generations {required} before it is mounted \
                 (eseutil /r {base})."
            ));
        }
    }
    if spec.mount {
        recovered.notes.push(
            "The files are at rest: no Exchange server is there to mount the database.".to_owned(),
        );
    }
    Ok(recovered)
}

fn native(place: &Place, path: &HostPath) -> PluginResult<PathBuf> {
    if path.host() != place.host() {
        return Err(PluginError::new(
            PluginErrorKind::Invalid,
            format!("{path} is not on {}, which this plug-in speaks for", place.host()),
        )
        .without_effect());
    }
    Ok(path.to_native()?)
}
