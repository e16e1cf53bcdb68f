//! What the machine of `run` is made of, as the command line says it.
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, anyhow};
use kscratch_formats::gpt;
use kscratch_qemu::{Disk, DiskFormat, DiskModel};

use crate::inspect::Opened;
use crate::spec::ByteSize;

/// Bytes of the sectors that disks have.
const SECTORS: [u32; 2] = [512, 4096];

/// A further disk, written `FILE|SIZE[,model=MODEL][,sector=BYTES][,serial=TEXT]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoreDisk {
    /// What it holds.
    pub source: Source,
    /// How it is reached.
    pub model: DiskModel,
    /// Bytes of a sector.
    pub sector: u32,
    /// Its serial number.
    pub serial: Option<String>,
}

/// Where the bytes of a further disk are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file, raw or qcow2, which the machine writes to.
    File(PathBuf),
    /// Nowhere: it is empty at first, and goes with the machine.
    Empty(ByteSize),
}

impl FromStr for MoreDisk {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split(',');
        let source = words.next().filter(|source| !source.is_empty());
        let source = source.ok_or_else(|| format!("the disk `{text}` begins with neither a file nor a size"))?;
        let source = match source.parse() {
            Ok(size) => Source::Empty(size),
            Err(_) => Source::File(source.into()),
        };
        let mut disk = MoreDisk { source, model: DiskModel::default(), sector: SECTORS[0], serial: None };
        for word in words {
            match word.split_once('=') {
                Some(("model", model)) => disk.model = model.parse()?,
                Some(("sector", bytes)) => disk.sector = sector(bytes)?,
                Some(("serial", serial)) if !serial.is_empty() => disk.serial = Some(serial.to_owned()),
                _ => {
                    return Err(format!(
                        "`{word}` of the disk `{text}` is none of model=MODEL, sector=BYTES, serial=TEXT"
                    ));
                }
            }
        }
        fits(disk.model, disk.sector)?;
        Ok(disk)
    }
}

/// Reads the bytes of a sector.
///
/// # Errors
/// No disk has such.
pub fn sector(text: &str) -> Result<u32, String> {
    let bytes = text.parse().ok().filter(|bytes| SECTORS.contains(bytes));
    bytes.ok_or_else(|| format!("sectors of `{text}` bytes: there are disks with 512 and with 4096"))
}

/// Bytes of the sectors that an image is made for; the usual ones, where that cannot be told.
pub fn sector_of(image: &Path) -> u32 {
    let table = Opened::open(image).ok().and_then(|disk| gpt::read(&disk, disk.disk_len()).ok());
    table.and_then(|table| u32::try_from(table.sector).ok()).unwrap_or(SECTORS[0])
}

/// Refuses what QEMU has not.
///
/// # Errors
/// It says which model has such sectors.
pub fn fits(model: DiskModel, sector: u32) -> Result<(), String> {
    if model == DiskModel::Cd && sector != SECTORS[0] {
        return Err(format!("a CD is read as it is, and this image is made for sectors of {sector} bytes"));
    }
    if model == DiskModel::Sata && sector != SECTORS[0] {
        return Err(format!(
            "QEMU's SATA disks have sectors of 512 bytes; nvme, scsi, usb and virtio can have {sector}"
        ));
    }
    Ok(())
}

/// The model and the sectors of the disk that an image is: those that are asked for, or that the image is made for, which has to be there by now.
pub(super) fn image_disk(image: &Path, (model, asked): (DiskModel, Option<u32>)) -> Result<(DiskModel, u32)> {
    let sector = asked.unwrap_or_else(|| sector_of(image));
    fits(model, sector)
        .map_err(|error| anyhow!(error))
        .with_context(|| format!("giving the machine {} as its disk", image.display()))?;
    Ok((model, sector))
}

/// Refuses further disks that are not there, before anything is started.
///
/// # Errors
/// A file cannot be opened.
pub(super) fn check(disks: &[MoreDisk]) -> Result<()> {
    for disk in disks {
        if let Source::File(path) = &disk.source {
            DiskFormat::of(path).with_context(|| format!("opening the disk {}", path.display()))?;
        }
    }
    Ok(())
}

/// The disks as QEMU takes them; those that begin empty are made in `folder`.
pub(super) fn disks(disks: &[MoreDisk], folder: &Path) -> Result<Vec<Disk>> {
    let disk = |(number, disk): (usize, &MoreDisk)| -> Result<Disk> {
        let (path, format) = match &disk.source {
            Source::File(path) => {
                let format = DiskFormat::of(path).with_context(|| format!("opening the disk {}", path.display()))?;
                (path.clone(), format)
            }
            Source::Empty(size) => {
                let path = folder.join(format!("disk{}", number + 1));
                let made = std::fs::File::create(&path).and_then(|file| file.set_len(size.0));
                made.with_context(|| format!("making the disk {}", path.display()))?;
                (path, DiskFormat::Raw)
            }
        };
        let MoreDisk { model, sector, serial, .. } = disk.clone();
        Ok(Disk { model, sector, serial, ..Disk::new(path, format) })
    };
    disks.iter().enumerate().map(disk).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use kscratch_formats::guid::Guid;
    use kscratch_formats::image::Data;

    use super::*;

    #[test]
    fn an_image_is_asked_for_its_sectors_once_it_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("built.img");
        assert_eq!(image_disk(&image, (DiskModel::Nvme, None)).unwrap(), (DiskModel::Nvme, 512));
        let file = std::fs::File::create(&image).unwrap();
        file.set_len(4 << 20).unwrap();
        for extent in gpt::tables::<()>(Guid([9; 16]), 4 << 20, 4096, &[]).unwrap() {
            let Data::Bytes(bytes) = extent.data else { panic!("a table is bytes") };
            file.write_all_at(&bytes, extent.offset).unwrap();
        }
        assert_eq!(image_disk(&image, (DiskModel::Nvme, None)).unwrap(), (DiskModel::Nvme, 4096));
        assert_eq!(image_disk(&image, (DiskModel::Sata, Some(512))).unwrap(), (DiskModel::Sata, 512));
        let error = format!("{:#}", image_disk(&image, (DiskModel::Sata, None)).unwrap_err());
        assert!(error.contains("built.img as its disk: QEMU's SATA disks have sectors of 512 bytes"), "{error}");
    }

    #[track_caller]
    fn check(text: &str, want: Result<MoreDisk, &str>) {
        match (text.parse::<MoreDisk>(), want) {
            (Ok(disk), Ok(want)) => assert_eq!(disk, want),
            (Err(error), Err(want)) => assert!(error.contains(want), "{error}"),
            (got, want) => panic!("{text}: got {got:?}, want {want:?}"),
        }
    }

    #[test]
    fn a_disk_is_a_file_or_a_size_and_what_it_is() {
        let plain = |source| MoreDisk { source, model: DiskModel::Virtio, sector: 512, serial: None };
        check("20GiB", Ok(plain(Source::Empty(ByteSize(20 << 30)))));
        check("a=b.img", Ok(plain(Source::File("a=b.img".into()))));
        let all = MoreDisk {
            model: DiskModel::Nvme,
            sector: 4096,
            serial: Some("S1".into()),
            ..plain(Source::File("./1GiB".into()))
        };
        check("./1GiB,model=nvme,sector=4096,serial=S1", Ok(all));
        check("", Err("neither a file nor a size"));
        check("a,b", Err("`b` of the disk `a,b` is none of"));
        check("a,serial=", Err("is none of"));
        check("a,model=floppy", Err("there is no disk model `floppy`"));
        check("a,sector=520", Err("sectors of `520` bytes"));
        check("a,model=sata,sector=4096", Err("SATA disks have sectors of 512 bytes"));
    }
}
