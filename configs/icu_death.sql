-- One row for each stay in a hospital of the eICU Collaborative Research Database (or its public demo): its first unit
-- stay, the physiology of the first day there, and whether the patient left the hospital alive.
--
-- Put this file beside the tables patient, hospital and apacheapsvar (CSV, gzipped or not, or Parquet).
--
-- -1 in apacheapsvar means "not measured". Left out, since they know the end: unit discharges, apachepatientresult, and
-- apachepredvar, whose column diedinhospital is the outcome itself.
WITH first_unit AS (
  SELECT *,
    row_number() OVER (
      PARTITION BY patienthealthsystemstayid
      ORDER BY try_cast(unitvisitnumber AS INTEGER), try_cast(patientunitstayid AS BIGINT)) AS place
  FROM patient
), day_one AS (
  SELECT try_cast(patientunitstayid AS BIGINT) AS stay,
    nullif(try_cast(COLUMNS(* EXCLUDE (apacheapsvarid, patientunitstayid)) AS DOUBLE), -1)
  FROM apacheapsvar
)
SELECT
  p.uniquepid AS patient,
  coalesce(nullif(trim(h.region), ''), 'Unknown') AS region,
  CASE WHEN p.age LIKE '>%' THEN 90 ELSE try_cast(p.age AS INTEGER) END AS age,
  CASE lower(p.gender) WHEN 'female' THEN 1 WHEN 'male' THEN 0 END AS female,
  day_one.* EXCLUDE (stay),
  CASE p.hospitaldischargestatus WHEN 'Expired' THEN 1 WHEN 'Alive' THEN 0 END AS died
FROM first_unit p
JOIN day_one ON day_one.stay = try_cast(p.patientunitstayid AS BIGINT)
LEFT JOIN hospital h ON try_cast(h.hospitalid AS BIGINT) = try_cast(p.hospitalid AS BIGINT)
WHERE p.place = 1 AND p.hospitaldischargestatus IN ('Expired', 'Alive')
